"""The hooks of a training under a supervisor, and the emergency exit for a stop request that cannot wait.

The hooks send reports over the supervisor's socket. On a CPU, a micro-batch of a large model can take a minute. If the
training has not obeyed a stop request after `urgent_seconds`, another thread saves the state of the last finished step
and ends the process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.child.lease_guard import LeaseGuard
from common.child.protocol import (
    EXIT_FAILED,
    EXIT_FINISHED,
    ArtifactSaved,
    Channel,
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
from common.disk import DiskReserve, Shortage
from common.errors import DiskFullError, StorageError, TidalError
from common.logging import get_logger
from common.metrics import MetricsWriter
from common.training.disk_hooks import DiskHooks
from common.training.hooks import Outcome, SavedCheckpoint, StopRequest, outcome_of
from tidal_client.vocabulary import WAITING_FOR_DISK

log = get_logger(__name__)

PROGRESS_SECONDS = 0.2
"""Minimum time in seconds between two progress messages."""
URGENT_SECONDS = 3.0
"""Time in seconds from a stop request to the emergency exit.

It is short, because the local stack kills a trainer that has not ended after about 10 s.
"""


class SupervisedHooks(DiskHooks):
    """Connects a training to its supervisor.

    Stop requests arrive in the thread that reads the socket.
    """

    def __init__(
        self,
        channel: Channel,
        writer: MetricsWriter,
        lease_guard: LeaseGuard,
        *,
        attempt: int,
        reserve: DiskReserve | None = None,
        urgent_seconds: float = URGENT_SECONDS,
        end_process: Callable[[int], None] = os._exit,
    ) -> None:
        super().__init__(reserve, writer)
        self.lease_guard = lease_guard
        self.finishing = False
        """True once only the last message remains to be sent, after which the supervisor may close the socket."""
        self._channel = channel
        self._attempt = attempt
        self._phase = "starting"
        """The current phase; during a wait for disk space, the phase before the wait."""
        self._urgent_seconds = urgent_seconds
        self._end_process = end_process
        self._request: StopRequest | None = None
        self._emergency_thread: threading.Thread | None = None
        self._finished = threading.Event()
        self._save_lock = threading.Lock()
        self._save: Callable[[], SavedCheckpoint | None] | None = None
        self._running = False
        self._rewound = False
        self._progress_at = -PROGRESS_SECONDS
        self._progress: Progress | None = None
        """The newest progress, if it has not been sent yet."""

    def request(self, request: StopRequest) -> None:
        """Set the stop request; it replaces an earlier one. Any thread and any signal handler may call this."""
        self._request = request
        if request is StopRequest.COMPLETE or self._emergency_thread is not None:
            return
        self._emergency_thread = threading.Thread(target=self._emergency_exit, name="urgent-stop", daemon=True)
        self._emergency_thread.start()

    def finish(self) -> None:
        """Write the remaining metrics.

        Call this after the handler has ended; only the last message may be sent afterwards.
        """
        with self._save_lock:
            self._save = None
        self._finished.set()
        self._send_progress()
        self._writer.close()
        self.finishing = True

    def phase(self, name: str) -> None:
        """Report a new phase to the supervisor."""
        self._phase = name
        self._send_progress()
        self._send(PhaseEntered(name=name))

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Queue metrics for the writer and log them.

        In every attempt after the first one, the first call of this method or of `report_progress` rewinds the metrics
        of earlier attempts. A validation before the first step calls this method before `report_progress`.
        """
        self._rewind(step)
        self._writer.add(kind, step, values)
        log.info(f"step {step}", **{name: float(f"{value:.5g}") for name, value in values.items()})

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        """Report progress to the supervisor, at most five times a second.

        The first call also reports that the training is running, and rewinds the metrics of earlier attempts. Progress
        that this limit has held back is sent with the next phase or at the end.
        """
        if not self._running:
            self._running = True
            self._rewind(step)
            self._send(Running())
        self._progress = Progress(step=step, total_steps=total_steps, time_share=time_share)
        now = time.monotonic()
        if now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self._send(self._progress, droppable=True)

    def requested_stop(self) -> StopRequest | None:
        """Return the newest stop request."""
        return self._request

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        """Report that the training waits for disk space, or, if `shortage` is None, that the wait is over.

        After the wait, the phase before the wait continues. The supervisor does not kill a waiting trainer, because
        these reports show that the trainer is alive.
        """
        if shortage is None:
            self._send(PhaseEntered(name=self._phase))
            return
        self._send_progress()
        wait = DiskWait(
            disk=shortage.disk,
            free_bytes=shortage.free_bytes,
            needed_bytes=shortage.needed_bytes,
            reason=shortage.reason,
        )
        self._send(PhaseEntered(name=WAITING_FOR_DISK, disk=wait))

    def wait_while_suspended(self) -> None:
        """Block while the lease may have been lost."""
        self.lease_guard.wait()

    def offer_checkpoint(self, save: Callable[[], SavedCheckpoint | None] | None) -> None:
        """Store `save`, which the emergency exit calls to write a checkpoint."""
        with self._save_lock:
            self._save = save

    def before_checkpoint(self) -> None:
        """Write all metrics to disk, then block while the lease may have been lost.

        An attempt that may have been replaced must not publish a checkpoint.
        """
        self.flush_metrics()
        self.lease_guard.wait()

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """Report the checkpoints that still exist. The supervisor deletes the database rows of all others."""
        self._send(CheckpointsKept(names=[f"checkpoints/{name}" for name in names]))

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        """Report checkpoints that were withdrawn, because training diverged after them.

        The supervisor deletes their database rows and records the newest remaining checkpoint.
        """
        self._send(
            CheckpointsWithdrawn(
                names=[f"checkpoints/{name}" for name in names],
                newest=None if newest is None else f"checkpoints/{newest.name}",
                newest_step=None if newest is None else newest.step,
            )
        )

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        """Report a checkpoint to the supervisor, which registers it."""
        self._send(
            CheckpointSaved(
                name=f"checkpoints/{info.name}", step=info.step, sha256=info.sha256, size_bytes=info.size_bytes
            )
        )

    def artifact_saved(self, name: str, kind: str) -> None:
        """Report an artifact to the supervisor."""
        self._send(ArtifactSaved(name=name, kind=kind))

    def event(self, name: str, **details: Any) -> None:
        """Log an event and report it to the supervisor."""
        log.info(name, **details)
        self._send(HistoryEvent(name=name, details=details))

    def _rewind(self, step: int) -> None:
        if self._attempt > 1 and not self._rewound:
            self._writer.rewind(step)
        self._rewound = True

    def _send_progress(self) -> None:
        # At the end of an attempt, two threads may call this at the same time.
        progress, self._progress = self._progress, None
        if progress is not None:
            self._send(progress)

    def _send(self, message: Message, *, droppable: bool = False) -> None:
        try:
            self._channel.send(message, droppable=droppable)
        except OSError:
            # The supervisor has ended, so another attempt may already be running. This attempt must not continue.
            self._end_process(EXIT_FAILED)

    def _emergency_exit(self) -> None:
        """Unless the training ends within `urgent_seconds`, save the last finished step and end the process."""
        if self._finished.wait(self._urgent_seconds):
            return
        self.lease_guard.wait()
        with self._save_lock:
            save = self._save
        self._emergency_thread = None  # A stop request that arrives from now on starts another thread.
        request = self._request
        assert request is not None  # This thread is started only after a stop request.
        # If `save` is None, the training has nothing to save now. After "complete", the training ends by itself.
        if save is None or request is StopRequest.COMPLETE:
            return
        self._emergency_thread = threading.current_thread()
        info = None
        try:
            info = save()
            if info is None:
                return
        except TidalError as error:
            if not _ends_without_failing(error, request):
                self._send(Failed(code=error.code, message=error.message))
                self._end_process(EXIT_FAILED)
                return
            self.event("checkpoint_failed", reason=error.message, left_with=None)
        except Exception as error:
            # `save` keeps the lock of the training even after an error. The main thread would wait for it for ever, so
            # the process must end.
            from services.trainer.failures import classify_failure

            log.exception("the emergency checkpoint failed")
            failure = classify_failure(error)
            self._send(Failed(code=failure.code, message=failure.message, kind=failure.kind))
            self._end_process(EXIT_FAILED)
            return
        # A newer request may have arrived in the meantime. "Complete" is ignored, because this attempt ends without an
        # evaluation and a final model.
        if self._request is not None and self._request is not StopRequest.COMPLETE:
            request = self._request
        log.info("the attempt was stopped in the middle of a step", request=request.value)
        self.finish()
        # A paused job needs a checkpoint to resume from. Without one, the attempt ends as drained, so that the job
        # returns to the queue.
        paused_without_checkpoint = request is StopRequest.PAUSE and info is None
        self._send(Finished(outcome=(Outcome.DRAINED if paused_without_checkpoint else outcome_of(request)).value))
        self._end_process(EXIT_FINISHED)


def _ends_without_failing(error: TidalError, request: StopRequest) -> bool:
    """Return False if the job fails because `error` prevented its last checkpoint, otherwise True.

    A full disk never fails the job. Any other error of the disk fails the job only if a pause was requested. All other
    errors fail the job.
    """
    return isinstance(error, DiskFullError) or (isinstance(error, StorageError) and request is not StopRequest.PAUSE)
