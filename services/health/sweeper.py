"""The sweep loop: `common.jobs.sweep.sweep` every reaper_seconds, and a heartbeat in Redis after each.

It looks sooner when a lease or a quarantine ends sooner, so a lost worker costs no round of waiting for the next look.
The heartbeat tells when a sweep last succeeded; a reaper that fails again and again is not silent
(`healthcheck`). After the database was lost, or this process stood still, the reaper waits for reaper_contact_seconds
of unbroken contact (`Contact`).
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
from common.db import database_away
from common.errors import UnavailableError
from common.jobs.reaper import DatabaseContact, max_answer_gap
from common.jobs.sweep import SweepReport, run_sweep
from common.logging import get_logger
from common.redis.publisher import RedisPublisher
from tidal_client.vocabulary import utc_text

JUST_AFTER_SECONDS = 0.02
"""A lease is past when the database's clock is beyond its end."""

log = get_logger(__name__)


class Sweeper:
    """Sweeps until `stop` is set."""

    def __init__(
        self,
        engine: Engine,
        publisher: RedisPublisher,
        settings: Settings,
        stop: threading.Event,
        *,
        published: Callable[[], int] = lambda: 0,
    ) -> None:
        """`published` counts the rows the relay has published, for the heartbeat."""
        self._engine = engine
        self._publisher = publisher
        self._settings = settings
        self._stop = stop
        self._published = published
        self._contact = DatabaseContact(max_answer_gap(settings))
        self._away = False
        self._trouble = ""
        self._started_at = self._swept_at = _now()

    def run(self) -> None:
        """Sweep, beat, wait."""
        while not self._stop.is_set():
            report = self.step()
            pause = self._settings.reaper_seconds
            if report is not None and report.due_in is not None:
                pause = min(pause, report.due_in + JUST_AFTER_SECONDS)
            self._stop.wait(pause)

    def step(self) -> SweepReport | None:
        """One sweep with its heartbeat; None when it did not succeed."""
        report: SweepReport | None = None
        try:
            report = run_sweep(self._engine, self._publisher, self._settings, contact=self._contact)
        except Exception as error:
            self._trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, SQLAlchemyError) and database_away(error):
                self._contact.record_outage()
                if not self._away:
                    log.warning("database away; nothing is judged until it has answered for a while", error=str(error))
                self._away = True
            else:
                log.exception("sweep stumbled")
        else:
            self._trouble = ""
            self._swept_at = _now()
            if self._away:
                log.info("database answers again", judging_in_seconds=self._settings.reaper_contact_seconds)
            self._away = False
            if not report.quiet:
                log.info("swept", **asdict(report.reaped), notifications=report.notifications)
        self._beat()
        return report

    def _beat(self) -> None:
        values = {
            "pid": str(os.getpid()),
            "host": socket.gethostname(),
            "startedAt": self._started_at,
            "sweptAt": self._swept_at,
            "database": "away" if self._away else "ok",
            "trouble": self._trouble,
            "judging": str(self._contact.settled(self._settings.reaper_contact_seconds)).lower(),
            "published": str(self._published()),
        }
        try:
            self._publisher.beat(values, ttl_seconds=3 * self._settings.reaper_seconds + 15)
        except UnavailableError as error:
            log.debug("no heartbeat", error=error.message)


def _now() -> str:
    return utc_text(datetime.now(UTC), "milliseconds")
