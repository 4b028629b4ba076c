"""Converts the child's messages to changes of the job's database row and to events for the live streams.

A checkpoint or artifact is registered only if its file is inside the experiment's folder. Progress is written at most
once a second, and only when the previous write of progress has finished. Decisions about the child are in
`services.worker.supervisor`.
"""

from __future__ import annotations

import json
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic.alias_generators import to_camel

from common.artifacts import ArtifactStore
from common.child.protocol import (
    ArtifactSaved,
    CheckpointSaved,
    CheckpointsKept,
    CheckpointsWithdrawn,
    DiskWait,
    Failed,
    Finished,
    HistoryEvent,
    Message,
    PhaseEntered,
    Progress,
    Running,
)
from common.errors import TidalError
from common.files import sha256_of
from common.jobs import queue
from common.jobs.registry import CHECKPOINT_FOLDER
from common.logging import get_logger
from common.redis import keys
from common.redis.live_feed import LiveFeed
from services.worker.claimed_job import ClaimedJob
from services.worker.progress import ProgressMeter, ProgressWatch
from services.worker.row_writer import RowWriter
from tidal_client.vocabulary import MEASURED, WAITING_FOR_DISK, JobStatus, utc_text

log = get_logger(__name__)

REPORT_SECONDS = 1.0
"""Minimum time in seconds between two writes of progress."""
LAST_PHASES = frozenset({"completing", "saving", "ablation"})
"""Phases that follow the last training step."""
ANALYSIS = "analysis"
"""The kind of artifact whose content is also stored as an analysis of the experiment."""
WEIGHTS_KINDS = frozenset({"model", "policy"})
"""Kinds of artifacts that contain weights. Files of all other kinds are registered as results."""


class ChildReports:
    """Handles the messages of one child. The argument `now` is the time of a monotonic clock in seconds."""

    def __init__(
        self,
        job: ClaimedJob,
        writer: RowWriter,
        feed: LiveFeed,
        store: ArtifactStore,
        watch: ProgressWatch,
        now: float,
    ) -> None:
        self._job, self._writer, self._feed, self._store = job, writer, feed, store
        self.status = JobStatus.PROVISIONING
        self.phase = "starting"
        self._disk_wait: DiskWait | None = None
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self.meter = ProgressMeter()
        self.watch = watch
        self._reported_at = now - REPORT_SECONDS
        self._progress_write: Future[None] | None = None

    def write_status(self, status: JobStatus) -> None:
        """Write a status that depends only on the child's reports or on a stop request.

        These are starting, running, completing and stopping. The final status is written by the supervisor.
        """
        self.status = status
        self._writer.submit(lambda session: queue.transition(session, self._job.id, self._job.attempt, status))

    def handle(self, message: Message, now: float) -> None:
        """Handle one message."""
        if isinstance(message, Progress):
            self.watch.record_progress(now)
            self.meter.record(message.step, message.total_steps, now, time_share=message.time_share)
            if now - self._reported_at >= REPORT_SECONDS:
                self._report(now)
        elif isinstance(message, PhaseEntered):
            self._enter_phase(message, now)
        elif isinstance(message, Running):
            if self.status is JobStatus.STARTING:
                self.write_status(JobStatus.RUNNING)
        elif isinstance(message, CheckpointSaved):
            self._register_checkpoint(message)
        elif isinstance(message, CheckpointsKept):
            self._keep_checkpoints(message)
        elif isinstance(message, CheckpointsWithdrawn):
            self._withdraw_checkpoints(message)
        elif isinstance(message, ArtifactSaved):
            self._register_artifact(message)
        elif isinstance(message, HistoryEvent):
            self.event(message.name, **message.details)
            if message.name == MEASURED:
                self._record_measurement(message.details)
        elif isinstance(message, Finished):
            self.finished = message
        elif isinstance(message, Failed):
            self.failed = message
        else:
            log.warning("the child sent a message that only a supervisor may send", message_type=message.type)

    def event(self, name: str, **details: object) -> None:
        """Record an event in the table `job_events`."""
        write = partial(queue.record_event, job_id=self._job.id, attempt=self._job.attempt, event=name, details=details)
        self._writer.submit(write)

    def _record_measurement(self, measurement: dict[str, object]) -> None:
        write = partial(
            queue.record_measurement, job_id=self._job.id, attempt=self._job.attempt, measurement=measurement
        )
        self._writer.submit(write)

    def report_final_progress(self, now: float) -> None:
        """Write the newest progress, even if the last write was less than REPORT_SECONDS ago."""
        if self.meter.step is not None:
            self._progress_write = None
            self._report(now)

    def _enter_phase(self, message: PhaseEntered, now: float) -> None:
        phase = message.name
        if WAITING_FOR_DISK in (phase, self.phase):
            self.meter.restart()
        self.phase, self._disk_wait = phase, message.disk
        self.watch.record_phase(phase, now)
        if phase in LAST_PHASES and self.status is JobStatus.RUNNING:
            self.write_status(JobStatus.COMPLETING)
        self._report(now)

    def _report(self, now: float) -> None:
        self._reported_at = now
        status = {
            "jobId": self._job.id,
            "attempt": self._job.attempt,
            "status": self.status.value,
            "phase": self.phase,
            "step": self.meter.step,
            "totalSteps": self.meter.total_steps,
            "etaSeconds": self.meter.eta_seconds,
            **({} if self._disk_wait is None else {"disk": _camel_case(self._disk_wait)}),
            "time": utc_text(datetime.now(UTC), "milliseconds"),
        }
        self._feed.event(self._job.streams, keys.EVENT_STATUS, status)
        if self._progress_write is None or self._progress_write.done():
            write = partial(
                queue.record_progress,
                job_id=self._job.id,
                attempt=self._job.attempt,
                step=self.meter.step or 0,
                total_steps=self.meter.total_steps,
                eta_seconds=self.meter.eta_seconds,
                phase=self.phase,
            )
            self._progress_write = self._writer.submit(write)

    def _register_checkpoint(self, message: CheckpointSaved) -> None:
        name = message.name if "/" in message.name else f"{CHECKPOINT_FOLDER}/{message.name}"
        if self._existing_path(name) is None:
            return
        write = partial(
            queue.register_checkpoint,
            job_id=self._job.id,
            attempt=self._job.attempt,
            name=name,
            step=message.step,
            sha256=message.sha256,
            size_bytes=message.size_bytes,
        )
        data = {
            "name": name,
            "step": message.step,
            "attempt": self._job.attempt,
            "sha256": message.sha256,
            "sizeBytes": message.size_bytes,
        }

        def announce(written: Future[str]) -> None:
            if written.exception() is None:
                self._feed.event(self._job.streams, keys.EVENT_CHECKPOINT, data)

        self._writer.submit(write).add_done_callback(announce)

    def _keep_checkpoints(self, message: CheckpointsKept) -> None:
        write = partial(
            queue.keep_checkpoints, job_id=self._job.id, attempt=self._job.attempt, names=frozenset(message.names)
        )
        self._writer.submit(write)

    def _withdraw_checkpoints(self, message: CheckpointsWithdrawn) -> None:
        newest = message.newest
        if newest is not None and self._existing_path(newest) is None:
            newest = None
        write = partial(
            queue.withdraw_checkpoints,
            job_id=self._job.id,
            attempt=self._job.attempt,
            names=frozenset(message.names),
            newest=newest,
            newest_step=message.newest_step,
        )
        self._writer.submit(write)

    def _register_artifact(self, message: ArtifactSaved) -> None:
        path = self._existing_path(message.name)
        if path is None:
            return
        digest = size = None
        if path.is_file():
            digest = sha256_of(path)
            size = path.stat().st_size
        kind = message.kind if message.kind in WEIGHTS_KINDS else "result"
        write = partial(
            queue.register_artifact,
            job_id=self._job.id,
            attempt=self._job.attempt,
            name=message.name,
            kind=kind,
            sha256=digest,
            size_bytes=size,
        )
        self._writer.submit(write)
        if message.kind == ANALYSIS:
            self._store_analysis(path)

    def _store_analysis(self, path: Path) -> None:
        """Store the result in the file `path` as an analysis.

        The file is read before the transaction, so that the transaction stays short.
        """
        try:
            result = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            log.error("the result of an analysis job cannot be read", name=path.name, error=str(error))
            return
        write = partial(queue.register_analysis, job_id=self._job.id, attempt=self._job.attempt, result=result)
        self._writer.submit(write)

    def _existing_path(self, name: str) -> Path | None:
        """Return the path of a file that the child has reported; None if it is missing or outside the experiment."""
        try:
            path = self._store.path(self._job.experiment_id, name)
        except TidalError as error:
            log.error("the child reported a file outside its experiment", name=name, error=error.message)
            return None
        if not path.exists():
            log.error("the child reported a file that does not exist", name=name)
            return None
        return path


def _camel_case(wait: DiskWait) -> dict[str, object]:
    """Return the fields of `wait` in camelCase, as live events contain them."""
    return {to_camel(name): value for name, value in wait.model_dump(exclude_none=True).items()}
