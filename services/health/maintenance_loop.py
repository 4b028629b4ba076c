"""The maintenance loop: every `reaper_seconds`, it does one maintenance pass and then sends a heartbeat.

A maintenance pass (`common.jobs.maintenance.run_maintenance`) requeues jobs whose worker was lost and repeats
notifications. If a lease, or the waiting time of a stale job, ends before the next pass is due, the next pass begins at
that end. Jobs of a lost worker are therefore requeued without a delay of up to `reaper_seconds`. The heartbeat contains
the time of the last successful pass, from which `healthcheck` detects that passes fail. After an outage of the database
or a suspension of this process, the reaper acts only once the database has answered for `reaper_contact_seconds`
without a break (`DatabaseContact`).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from common.config import Settings
from common.db import database_unavailable
from common.errors import UnavailableError
from common.jobs.maintenance import MaintenanceReport, run_maintenance
from common.jobs.reaper import DatabaseContact, max_answer_gap
from common.logging import get_logger
from common.redis.publisher import RedisPublisher
from tidal_client.vocabulary import utc_text

MARGIN_SECONDS = 0.02
"""Delay in seconds from the end of a lease to the maintenance pass. Exactly at the end, the lease would still count as
valid."""

log = get_logger(__name__)


class MaintenanceLoop:
    """Does maintenance passes until `stop` is set."""

    def __init__(
        self,
        engine: Engine,
        publisher: RedisPublisher,
        settings: Settings,
        stop: threading.Event,
        *,
        published: Callable[[], int] = lambda: 0,
    ) -> None:
        """`published` returns the number of rows that the relay has published; the heartbeat contains this number."""
        self._engine = engine
        self._publisher = publisher
        self._settings = settings
        self._stop = stop
        self._published = published
        self._contact = DatabaseContact(max_answer_gap(settings))
        self._database_unavailable = False
        self._error = ""
        """The error of the newest maintenance pass; "" if it succeeded."""
        self._started_at = self._last_pass_at = _now()

    def run(self) -> None:
        """Repeat until `stop` is set: do a maintenance pass, send a heartbeat and wait."""
        while not self._stop.is_set():
            report = self.run_once()
            pause = self._settings.reaper_seconds
            if report is not None and report.due_in is not None:
                pause = min(pause, report.due_in + MARGIN_SECONDS)
            self._stop.wait(pause)

    def run_once(self) -> MaintenanceReport | None:
        """Do one maintenance pass and send a heartbeat. Return None if the pass failed."""
        report: MaintenanceReport | None = None
        try:
            report = run_maintenance(self._engine, self._publisher, self._settings, contact=self._contact)
        except Exception as error:
            self._error = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, SQLAlchemyError) and database_unavailable(error):
                self._contact.record_outage()
                if not self._database_unavailable:
                    message = (
                        "the database does not answer; the reaper stays inactive until it has answered for a while"
                    )
                    log.warning(message, error=str(error))
                self._database_unavailable = True
            else:
                log.exception("a maintenance pass failed")
        else:
            self._error = ""
            self._last_pass_at = _now()
            if self._database_unavailable:
                log.info("the database answers again", judging_in_seconds=self._settings.reaper_contact_seconds)
            self._database_unavailable = False
            if not report.quiet:
                log.info(
                    "a maintenance pass changed jobs or repeated notifications",
                    **asdict(report.reaped),
                    notifications=report.notifications,
                )
        self._beat()
        return report

    def _beat(self) -> None:
        values = {
            "pid": str(os.getpid()),
            "host": socket.gethostname(),
            "startedAt": self._started_at,
            "sweptAt": self._last_pass_at,
            "database": "away" if self._database_unavailable else "ok",
            "trouble": self._error,
            "judging": str(self._contact.settled(self._settings.reaper_contact_seconds)).lower(),
            "published": str(self._published()),
        }
        try:
            self._publisher.beat(values, ttl_seconds=3 * self._settings.reaper_seconds + 15)
        except UnavailableError as error:
            log.debug("the heartbeat could not be written", error=error.message)


def _now() -> str:
    return utc_text(datetime.now(UTC), "milliseconds")
