"""Executes one attempt of a job as a child of a supervisor: receives the job, calls its handler, reports the result.

All messages go through the socket (`common.child.protocol`). The end of file on the socket means that the supervisor
has ended; the trainer then exits at once. The handlers of the job types are in `services.trainer.handlers`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import structlog

from common.artifacts import ArtifactStore
from common.child.lease_guard import LeaseGuard, die_with_parent
from common.child.protocol import (
    EXIT_FAILED,
    EXIT_FINISHED,
    Channel,
    ChildJob,
    Failed,
    Finished,
    ProtocolError,
    Start,
    Stop,
)
from common.child.socket import CHILD_FD_VARIABLE
from common.disk import DiskReserve
from common.errors import DiskFullError
from common.logging import configure, get_logger
from common.metrics import EventFile, MetricsWriter
from common.training.disk_hooks import DATA, EXPERIMENTS
from common.training.disk_wait import wait_for_disk, wait_to_retry_write
from common.training.hooks import Outcome, StopRequest, outcome_of
from services.trainer.supervised_hooks import SupervisedHooks
from tidal_client.vocabulary import JobType

log = get_logger(__name__)


def run_child() -> int:
    """Receive the job from the supervisor, execute it and return the exit status."""
    die_with_parent()
    configure("trainer")
    if CHILD_FD_VARIABLE not in os.environ:
        sys.stderr.write("services.trainer is started by a worker; to train without services, run: tidal train lm|rl\n")
        return 2
    channel = Channel.from_environment()
    try:
        start = channel.receive()
    except (EOFError, ProtocolError):
        return EXIT_FAILED
    if not isinstance(start, Start):
        log.error("the first message from the supervisor is not 'start'", message=type(start).__name__)
        return EXIT_FAILED
    structlog.contextvars.bind_contextvars(job_id=start.job.job_id, attempt=start.job.attempt)
    return _execute(channel, start)


def _execute(channel: Channel, start: Start) -> int:
    job = start.job
    store = ArtifactStore(Path(start.experiments_dir))
    directory = store.experiment(job.experiment_id)
    writer = MetricsWriter(
        directory,
        start.redis_url,
        job.experiment_id,
        job.job_id,
        job.attempt,
        stream_max_length=start.stream_max_length,
        event_file=EventFile(directory, job.attempt) if _writes_event_files(job) else None,
    )
    reserve = DiskReserve({EXPERIMENTS: directory, DATA: Path(start.data_dir)}, start.disk_reserve_bytes)
    lease_guard = LeaseGuard(start.pause_after_seconds, start.renewed_at)
    hooks = SupervisedHooks(channel, writer, lease_guard, attempt=job.attempt, reserve=reserve)
    listener = threading.Thread(target=_listen, args=(channel, hooks), name="supervisor", daemon=True)
    listener.start()
    signal.signal(signal.SIGTERM, lambda *_: hooks.request(StopRequest.DRAIN))
    try:
        request = wait_for_disk(hooks, obeyed=_requests_obeyed_before_start(start, directory))
        if request is not None:
            return _report_outcome(channel, hooks, outcome_of(request))
        # This import takes seconds, because it loads torch. The listener already runs, and notices if the supervisor
        # ends.
        from services.trainer.handlers import HANDLERS, JobPaths

        handler = HANDLERS.get(job.job_type)
        if handler is None:
            raise ProtocolError(f"job type '{job.job_type}' has no handler; known are {', '.join(sorted(HANDLERS))}")
        outcome = handler(job, JobPaths(store, Path(start.data_dir)), hooks)
    except DiskFullError as error:
        # The disk became full at a point where the work cannot wait. The job returns to the queue, and its next attempt
        # first waits until the disk has free space.
        hooks.event("checkpoint_failed", reason=error.message, left_with=None)
        wait_to_retry_write(hooks, error.message)
        return _report_outcome(channel, hooks, Outcome.DRAINED)
    except Exception as error:
        return _report_failure(channel, hooks, error)
    return _report_outcome(channel, hooks, outcome)


def _writes_event_files(job: ChildJob) -> bool:
    """Return whether the metrics of the job are also written for TensorBoard (`tensorboard` of its configuration).

    The payload is not validated yet, because this would import the configuration before the first report.
    """
    config = job.payload.get("config")
    if job.job_type not in (JobType.LM_TRAINING, JobType.RL_TRAINING) or not isinstance(config, dict):
        return False
    section = config.get("training", config)
    return not isinstance(section, dict) or section.get("tensorboard") is not False


def _requests_obeyed_before_start(start: Start, directory: Path) -> set[StopRequest]:
    """Return the stop requests that the trainer obeys before the job begins.

    They include a pause only if there is a checkpoint to resume from.
    """
    resumable = start.job.payload.get("initial_checkpoint") or any((directory / "checkpoints").glob("*/manifest.json"))
    return {StopRequest.STOP, StopRequest.DRAIN} | ({StopRequest.PAUSE} if resumable else set())


def _report_outcome(channel: Channel, hooks: SupervisedHooks, outcome: Outcome) -> int:
    hooks.finish()
    log.info("the job has ended", outcome=outcome.value)
    channel.send(Finished(outcome=outcome.value))
    return EXIT_FINISHED


def _report_failure(channel: Channel, hooks: SupervisedHooks, error: Exception) -> int:
    from services.trainer.failures import classify_failure

    failure = classify_failure(error)
    if failure.code == "internal_error":
        log.exception("the job failed")
    else:
        log.error("the job failed", code=failure.code, message=failure.message)
    hooks.finish()
    channel.send(Failed(code=failure.code, message=failure.message, kind=failure.kind))
    return EXIT_FAILED


def _listen(channel: Channel, hooks: SupervisedHooks) -> None:
    """Handle the supervisor's messages until the channel is closed."""
    while True:
        try:
            message = channel.receive()
        except (EOFError, OSError):
            if not hooks.finishing:
                os._exit(EXIT_FAILED)
            return
        except ProtocolError as error:
            log.warning("an invalid message from the supervisor was ignored", error=str(error))
            continue
        if isinstance(message, Stop):
            hooks.request(StopRequest(message.request))
        elif message is not None:
            hooks.lease_guard.handle(message)
