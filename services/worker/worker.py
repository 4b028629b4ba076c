"""A training worker: claims the next job after a notification and supervises it, and sends heartbeats.

Each Celery process has one worker, which is created on first use. `drain` is called when the process has to shut down.
The Celery tasks are in `services.worker.tasks`.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading

from sqlalchemy.exc import SQLAlchemyError

from common.child.lease_guard import lease_clock
from common.config import Settings
from common.db import database_unavailable, make_engine, session_factory
from common.errors import JobFailed
from common.jobs.outbox import add_notifications
from common.jobs.queue import claim_job
from common.logging import get_logger
from common.redis.heartbeat import Heartbeat
from common.redis.live_feed import LiveFeed
from services.worker.calibration import Calibrator
from services.worker.claimed_job import ClaimedJob
from services.worker.desired_state_listener import DesiredStateListener
from services.worker.supervisor import JobSupervisor
from tidal_client.vocabulary import JobStatus

log = get_logger(__name__)

_RETRY_SECONDS = 1.0
"""Seconds between two attempts to reach the database."""


def worker_name() -> str:
    """Return `host:pid:random`, which is unique even after a restart in a container."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Worker:
    """Runs one job per call of `run_next`, and sends heartbeats.

    Call `run_next` for every notification. Several threads may call it at the same time.
    """

    def __init__(self, settings: Settings, *, queue: str, name: str | None = None) -> None:
        self.name = name or worker_name()
        self._settings, self._queue = settings, queue
        self._engine = make_engine(
            settings.database_url,
            application_name="tidal-worker",
            # If a worker is suspended during a transaction, the row that it has locked must not block the reaper for
            # long.
            idle_in_transaction_timeout=max(0.5, settings.lease_seconds / 6),
        )
        self._sessions = session_factory(self._engine)
        redis_url = settings.redis_url.get_secret_value()
        self._feed = LiveFeed(redis_url, stream_max_length=settings.stream_max_length)
        self._running: dict[tuple[str, int], JobSupervisor] = {}
        self._lock = threading.Lock()
        self._draining = threading.Event()
        self._listener = DesiredStateListener(redis_url, self._check_desired_state)
        self._calibrator = Calibrator(settings)
        self._heartbeat = Heartbeat(
            self.name, self._feed, self._describe, seconds=settings.heartbeat_seconds, children=self._trainer_pids
        )

    def run_next(self, queue: str) -> str:
        """Claim one job of `queue` and execute it. Return a description of the result, which Flower shows.

        While the database does not answer, this method waits, because a worker without a database must not use up
        notifications that other workers could use. Raises JobFailed if the job failed.
        """
        job = self._claim(queue)
        if isinstance(job, str):
            return job
        log.info("job claimed", job_id=job.id, attempt=job.attempt, type=job.type)
        supervisor = JobSupervisor(
            job, sessions=self._sessions, settings=self._settings, feed=self._feed, drain=self._draining
        )
        with self._lock:
            self._running[job.id, job.attempt] = supervisor
        self._calibrator.job_began()
        self._heartbeat.beat()
        try:
            status = supervisor.supervise()
        finally:
            with self._lock:
                del self._running[job.id, job.attempt]
            self._calibrator.job_ended()
            self._heartbeat.beat()
        text = f"{job.id} attempt {job.attempt}: {'lease lost' if status is None else status.value}"
        log.info("attempt ended", job_id=job.id, attempt=job.attempt, status=None if status is None else status.value)
        if status is JobStatus.FAILED:
            raise JobFailed(text)
        return text

    def _claim(self, queue: str) -> ClaimedJob | str:
        """Claim the next job of `queue`; return a text with the reason if there is none."""
        unavailable = False
        while not self._draining.is_set():
            claimed_at = lease_clock()
            try:
                with self._sessions.begin() as session:
                    row = claim_job(session, queue, self.name, self._settings)
                    return "no job to claim" if row is None else ClaimedJob.of(row, claimed_at=claimed_at)
            except SQLAlchemyError as error:
                if not database_unavailable(error):
                    raise
                if not unavailable:
                    message = "no job can be claimed, because the database does not answer"
                    log.warning(message, error=str(error).splitlines()[0])
                unavailable = True
            self._draining.wait(_RETRY_SECONDS)
        self._return_notification(queue)
        return "the worker is shutting down"

    def _return_notification(self, queue: str) -> None:
        """Send the notification again, because this worker shuts down and another worker may be waiting for one."""
        try:
            with self._sessions.begin() as session:
                add_notifications(session, queue)
        except SQLAlchemyError as error:
            message = "a notification could not be sent again; the next maintenance pass sends it"
            log.warning(message, error=str(error).splitlines()[0])

    def drain(self) -> None:
        """Claim no further jobs, and stop the running ones. Does not wait for their end.

        The running jobs write a checkpoint and return to the queue.
        """
        self._draining.set()
        with self._lock:
            running = list(self._running.values())
        for supervisor in running:
            supervisor.check_drain()

    def close(self) -> None:
        """End the threads and close the connections. Call this when no job is running."""
        self._draining.set()
        self._calibrator.close()
        self._heartbeat.close()
        self._listener.close()
        self._feed.close()
        self._engine.dispose()

    def _check_desired_state(self, job_id: str) -> None:
        with self._lock:
            supervisors = [supervisor for (running, _), supervisor in self._running.items() if running == job_id]
        for supervisor in supervisors:
            supervisor.check_desired_state()

    def _trainer_pids(self) -> list[int]:
        with self._lock:
            return [pid for supervisor in self._running.values() if (pid := supervisor.trainer_pid) is not None]

    def _describe(self) -> dict[str, str]:
        with self._lock:
            running = list(self._running.values())
        state = "leaving" if self._draining.is_set() else "busy" if running else "idle"
        fields = {"queue": self._queue, "state": state, **self._calibrator.describe()}
        for supervisor in running:
            fields |= supervisor.describe()
        return fields
