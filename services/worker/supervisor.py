"""Supervises one attempt of one job, from its claim to its end.

The supervisor starts the trainer as a child, keeps the lease, forwards and escalates stop requests, and writes the
result. Every write to the database checks that the job still has this attempt number. The supervisor does not import
torch and makes no decisions about training. One thread runs `supervise`. The lease, the writes to the job's row, the
logs and Redis have their own threads; an outage of the database or Redis therefore never prevents the supervisor from
controlling its child.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from functools import partial

from sqlalchemy.orm import Session, sessionmaker

from common.artifacts import ArtifactStore
from common.child.lease_guard import lease_clock
from common.child.protocol import Ping, ProtocolError, Start, Stop, Suspend
from common.config import Settings
from common.config.server_paths import ServerPaths
from common.disk import MIB
from common.errors import LeaseLostError
from common.jobs.queue import complete_job, fail_job, pause_job, release_job
from common.jobs.retry import Fault
from common.logging import get_logger
from common.redis.live_feed import LiveFeed
from services.worker.child_process import EXIT_SECONDS, ChildProcess, trainer_command
from services.worker.child_reports import ChildReports
from services.worker.claimed_job import ClaimedJob
from services.worker.exit_status import Ending, KillReason, classify
from services.worker.lease_keeper import LeaseKeeper
from services.worker.log_capture import LogCapture
from services.worker.oom_kills import oom_kill_count
from services.worker.progress import ProgressWatch
from services.worker.row_writer import RowWriter
from services.worker.stop_escalation import StopAction, StopEscalation
from services.worker.wakeup_pipe import WakeupPipe
from tidal_client.vocabulary import DesiredState, JobStatus

log = get_logger(__name__)

TICK_SECONDS = 1.0
"""Longest wait of the supervisor's loop in seconds. A message ends the wait at once; a known deadline shortens it."""
SHORTEST_TICK_SECONDS = 0.05
"""Shortest wait in seconds between two checks of a child that still runs after a deadline."""
TEARDOWN_SECONDS = 15.0
"""Time in seconds after which a child that has sent `finished` but has not exited is killed.

It is longer than EXIT_SECONDS: all files are already written, and torch may take long to shut down.
"""

_BEFORE_STEPS = frozenset({JobStatus.PROVISIONING, JobStatus.STARTING})


class JobSupervisor:
    """Executes one claimed job. The worker sets `drain` when it has to shut down."""

    def __init__(
        self,
        job: ClaimedJob,
        *,
        sessions: sessionmaker[Session],
        settings: Settings,
        feed: LiveFeed,
        drain: threading.Event,
    ) -> None:
        self._job, self._settings, self._drain = job, settings, drain
        self._store = ArtifactStore(settings.experiments_dir)
        self._writer = RowWriter(sessions)
        self._wakeup = WakeupPipe()
        self._keeper = LeaseKeeper(
            sessions, job.id, job.attempt, settings, claimed_at=job.claimed_at, changed=self._wakeup.set
        )
        now = time.monotonic()
        watch = ProgressWatch(now, floor_seconds=settings.no_progress_seconds, phase_seconds=settings.phase_seconds)
        self._reports = ChildReports(job, self._writer, feed, self._store, watch, now)
        self._escalation = StopEscalation(
            stop_grace=settings.stop_grace_seconds,
            kill_grace=settings.kill_grace_seconds,
            drain_grace=settings.drain_seconds,
        )
        self._child: ChildProcess | None = None
        self._killed: KillReason | None = None
        self._suspended = False
        self._pinged_at = job.claimed_at

    @property
    def job(self) -> ClaimedJob:
        """The job that this supervisor runs."""
        return self._job

    @property
    def trainer_pid(self) -> int | None:
        """Process id of the trainer; None before the trainer is started."""
        return None if self._child is None else self._child.pid

    def check_desired_state(self) -> None:
        """Make the supervisor read the desired state, because it has changed. May be called from any thread."""
        self._keeper.wake()

    def check_drain(self) -> None:
        """Make the supervisor check `drain`, because it was set. May be called from any thread."""
        self._wakeup.set()

    def describe(self) -> dict[str, str]:
        """Return the fields of a heartbeat that describe the attempt. May be called from any thread."""
        meter = self._reports.meter
        pace = meter.steps_per_second
        return {
            "job": self._job.id,
            "attempt": str(self._job.attempt),
            "jobType": self._job.type,
            "experiment": self._job.experiment_id,
            "phase": self._reports.phase,
            "suspended": str(self._suspended).lower(),
            "step": "" if meter.step is None else str(meter.step),
            "totalSteps": "" if meter.total_steps is None else str(meter.total_steps),
            "stepsPerSecond": "" if pace is None else f"{pace:.6g}",
            "trainerPid": "" if self.trainer_pid is None else str(self.trainer_pid),
        }

    def supervise(self) -> JobStatus | None:
        """Execute the job and return the status that was written to the database.

        Return None if the lease was lost, or if the worker has to shut down while the database does not answer. Call
        this from a thread that outlives the job, because the kernel kills the trainer when that thread ends.
        """
        self._keeper.start()
        abandon = True
        try:
            ending = self._run()
            status = None if ending is None else self._commit_ending(ending)
            abandon = status is None
            return status
        finally:
            self._keeper.stop()
            self._writer.close(abandon=abandon)
            self._wakeup.close()

    def _run(self) -> Ending | None:
        if self._drain.is_set():
            return Ending(outcome="drained")
        folder = self._store.experiment(self._job.experiment_id)
        try:
            capture = LogCapture(
                folder / "logs" / f"{self._job.attempt}.log",
                attempt=self._job.attempt,
                redis_url=self._settings.redis_url.get_secret_value(),
                streams=self._job.streams,
                stream_max_length=self._settings.stream_max_length,
                max_bytes=self._settings.log_max_bytes,
            )
        except OSError as error:
            return _not_started(f"The experiment's folder {folder} cannot be written: {error}")
        self._child = child = ChildProcess(trainer_command(self._settings.trainer_command), capture)
        kills_before = oom_kill_count()
        try:
            try:
                child.start(self._start_message())
            except OSError as error:
                return _not_started(f"The trainer could not be started: {error}")
            self._reports.write_status(JobStatus.STARTING)
            self._watch_child(child)
            finished = self._reports.finished
            status = child.wait(EXIT_SECONDS if finished is None else TEARDOWN_SECONDS)
        finally:
            child.close()
            capture.close()
        if self._killed is KillReason.LEASE_LOST:
            return None
        self._reports.report_final_progress(time.monotonic())
        return classify(
            status,
            finished=finished,
            failed=self._reports.failed,
            killed=self._killed,
            oom_kills=oom_kill_count() - kills_before,
            log_tail=capture.tail,
        )

    def _start_message(self) -> Start:
        settings = self._settings
        return Start(
            job=self._job.for_child(),
            experiments_dir=str(settings.experiments_dir.absolute()),
            data_dir=str(settings.data_dir.absolute()),
            redis_url=settings.redis_url.get_secret_value(),
            stream_max_length=settings.stream_max_length,
            disk_reserve_bytes=settings.disk_reserve_mb * MIB,
            pause_after_seconds=settings.trainer_pause_seconds,
            renewed_at=self._keeper.renewed_at,
        )

    def _watch_child(self, child: ChildProcess) -> None:
        """Handle messages, the lease and stop requests until the child has ended."""
        while True:
            message = None
            try:
                message = child.receive(self._seconds_until_due(time.monotonic()), self._wakeup)
            except EOFError:
                return
            except ProtocolError as error:
                log.error("the child sent an invalid message", error=str(error))
            self._wakeup.clear()
            now = time.monotonic()
            if message is not None:
                self._reports.handle(message, now)
            if self._keeper.lost.is_set() or self._writer.lost.is_set():
                self._kill(child, KillReason.LEASE_LOST)
            self._check_lease(child, now)
            self._check_stop_requests(child, now)
            if self._reports.watch.overdue(now):
                self._kill(child, KillReason.NO_PROGRESS)

    def _seconds_until_due(self, now: float) -> float:
        """Return the seconds after which the loop has to continue even if no message arrives."""
        due = [TICK_SECONDS, self._reports.watch.overdue_at - now]
        if self._escalation.next_deadline is not None:
            due.append(self._escalation.next_deadline - now)
        if not self._suspended:
            due.append(self._keeper.renewed_at + self._settings.trainer_pause_seconds - lease_clock())
        return max(SHORTEST_TICK_SECONDS, min(due))

    def _check_lease(self, child: ChildProcess, now: float) -> None:
        renewed_at = self._keeper.renewed_at
        if renewed_at > self._pinged_at:
            self._pinged_at = renewed_at
            child.send(Ping(renewed_at=renewed_at))
            if self._suspended:
                self._suspended = False
                self._reports.meter.restart()
                self._reports.event("resumed_after_suspension")
        if lease_clock() - renewed_at > self._settings.trainer_pause_seconds and not self._suspended:
            self._suspended = True
            child.send(Suspend())
            log.warning("the trainer is suspended, because the lease cannot be renewed", job_id=self._job.id)
        if self._suspended:
            self._reports.watch.restart_limit(now)

    def _check_stop_requests(self, child: ChildProcess, now: float) -> None:
        requested = self._keeper.requested_state
        if self._drain.is_set():
            self._escalation.request("drain", now)
        if requested is not None:
            match requested.desired_state:
                case DesiredState.STOP:
                    self._escalation.request("stop", now, cancel=requested.cancel_requested)
                    if self._reports.status is not JobStatus.STOPPING:
                        self._reports.write_status(JobStatus.STOPPING)
                case DesiredState.PAUSE:
                    self._escalation.request("pause", now, stepping=self._reports.status not in _BEFORE_STEPS)
                case DesiredState.COMPLETE:
                    self._escalation.request("complete", now)
                case DesiredState.RUN:
                    pass
        match self._escalation.next_action(now):
            case StopAction.SEND_REQUEST:
                assert self._escalation.requested is not None
                child.send(Stop(request=self._escalation.requested))
            case StopAction.TERMINATE:
                details = {"wish": self._escalation.requested}
                self._reports.event("sigterm_sent", **details)
                child.terminate()
            case StopAction.KILL:
                drained = self._escalation.requested == "drain"
                self._kill(child, KillReason.DRAIN if drained else KillReason.STOP_GRACE)
            case None:
                pass

    def _kill(self, child: ChildProcess, reason: KillReason) -> None:
        if self._killed is None:
            self._killed = reason
            log.warning("killing the trainer", job_id=self._job.id, reason=reason.value)
            if reason is not KillReason.LEASE_LOST:
                self._reports.event("sigkill_sent", reason=reason.value)
            child.kill()

    def _commit_ending(self, ending: Ending) -> JobStatus | None:
        """Write how the attempt ended, and return the committed status of the job.

        Return None if the lease was lost, or if the worker has to shut down and the database does not answer.
        """
        job = self._job
        ending = replace(ending, message=ServerPaths(self._settings).hidden(ending.message))
        write = partial(_write_ending, job_id=job.id, attempt=job.attempt, ending=ending, settings=self._settings)
        written = self._writer.submit(write)
        gives_up_at: float | None = None
        while True:
            try:
                return written.result(timeout=TICK_SECONDS)
            except FutureTimeoutError:
                now = time.monotonic()
                if self._drain.is_set() and gives_up_at is None:
                    gives_up_at = now + self._settings.drain_seconds
                if self._keeper.lost.is_set() or (gives_up_at is not None and now > gives_up_at):
                    return None
            except LeaseLostError:
                return None


def _write_ending(session: Session, job_id: str, attempt: int, ending: Ending, settings: Settings) -> JobStatus:
    """Write how the attempt ended, and return the status that the job has afterwards.

    Call this after the child has ended. The desired state in the job's row takes precedence (`common.jobs.ownership`):
    on a stop request the job becomes cancelled, even if the attempt completed, paused or failed; if the attempt paused
    but the pause request was withdrawn, the job returns to the queue. Raises LeaseLostError if another attempt owns the
    job.
    """
    if ending.fault is not None:
        return fail_job(session, job_id, attempt, ending.fault, ending.message, code=ending.code, settings=settings)
    if ending.killed is not None:
        return release_job(session, job_id, attempt, reason=ending.killed.value, details={"killed": True})
    if ending.outcome == "completed":
        return complete_job(session, job_id, attempt)
    if ending.outcome == "paused":
        return pause_job(session, job_id, attempt)
    return release_job(session, job_id, attempt, reason=ending.outcome or "unknown")


def _not_started(message: str) -> Ending:
    return Ending(fault=Fault.WORKER_LOST, code="trainer_not_started", message=message)
