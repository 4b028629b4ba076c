"""Writes checkpoints in the background during training, and the last one when the training ends.

A checkpoint interrupts training only for the copy to host memory (`common.checkpoint.snapshot`); a thread serialises
and hashes the copy, flushes the files to disk and renames their folder. At most one snapshot is being written and at
most one is pending. A newer snapshot replaces the pending one. If only the pending one is the best so far, the newer
one is skipped instead. A training that ends waits for the current write and then writes its last state synchronously.

A failed write does not end a training. It is reported as the event `checkpoint_failed`, and older checkpoints are kept.
If a write fails because the disk is full, `refusal` is set, and the training waits (`common.training.disk_wait`) until
a call of `write` succeeds. If the disk is too full for a snapshot that is the best so far, the next call of `write`
writes that snapshot before its own one. After any other failure, a new snapshot is due after `RETRY_SECONDS`.
`common.checkpoint.manager` writes the files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from common.checkpoint.manager import CheckpointInfo, CheckpointManager
from common.checkpoint.snapshot import TrainingSnapshot
from common.errors import DiskFullError, DivergedError, StorageError
from common.logging import get_logger

log = get_logger(__name__)

RETRY_SECONDS = 30.0
"""Seconds from a failed write to the next attempt."""


class CheckpointListener(Protocol):
    """The methods of `TrainingHooks` that are called by the thread that writes checkpoints."""

    def before_checkpoint(self) -> None:
        """Called right before a checkpoint becomes visible.

        The trainer's implementation writes metrics to disk, and blocks while the trainer is suspended.
        """

    def checkpoint_saved(self, info: CheckpointInfo) -> None:
        """Called when a checkpoint is complete on disk."""

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """Called with the names of all checkpoints that are now on disk."""

    def event(self, name: str, **details: Any) -> None:
        """Called with an event that is recorded for the job."""


class CheckpointWriter:
    """Writes the checkpoints of one training. Its thread starts with the first background write."""

    def __init__(
        self, manager: CheckpointManager, listener: CheckpointListener, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self.manager = manager
        self._listener = listener
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._pending: TrainingSnapshot | None = None
        self._writing: TrainingSnapshot | None = None
        self._newest: tuple[Hashable, CheckpointInfo] | None = None
        self._failed_at: float | None = None
        """time.monotonic() of the latest failure; None if the latest write succeeded."""
        self._refusal: str | None = None
        """Error message of the latest write if the disk was full; None after a successful write."""
        self._refused_best: TrainingSnapshot | None = None
        """The best snapshot so far, if the disk was too full to write it. The next `write` writes it first."""
        self._error: Exception | None = None
        """An error of the background thread that is not a StorageError, to be raised in the training thread."""
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def newest(self) -> CheckpointInfo | None:
        """The newest checkpoint of this training on disk, or None."""
        with self._changed:
            return None if self._newest is None else self._newest[1]

    @property
    def refusal(self) -> str | None:
        """Error message of the latest write if the disk was full; None after a successful write."""
        with self._changed:
            return self._refusal

    def wait_until_idle(self) -> None:
        """Block until no snapshot is being written or pending."""
        with self._changed:
            self._changed.wait_for(lambda: self._writing is None and (self._pending is None or self._thread is None))

    @property
    def retry_is_due(self) -> bool:
        """Whether a new snapshot is due because the latest write failed.

        True if `retry_seconds` have passed since the failure, and no snapshot is pending or being written.
        """
        with self._changed:
            if self._pending is not None or self._writing is not None:
                return False
            return self._failed_at is not None and time.monotonic() - self._failed_at >= self._retry_seconds

    def adopt(self, info: CheckpointInfo, key: Hashable) -> None:
        """Record that the training resumes from the checkpoint `info`. `key` identifies the state that it contains."""
        with self._changed:
            self._newest = (key, info)

    def has_state(self, key: Hashable) -> bool:
        """Return whether the state that `key` identifies is on disk, being written or pending."""
        with self._changed:
            queued = (self._pending, self._writing)
            return self._is_newest(key) or any(snapshot is not None and snapshot.key == key for snapshot in queued)

    def submit(self, snapshot: TrainingSnapshot) -> bool:
        """Write `snapshot` in the background. Return whether it will be written.

        The result is False if `snapshot` is not the best so far and the pending snapshot is; `snapshot` is then
        skipped.

        Raises the error of an earlier background write if it was not a StorageError: DivergedError if the state was not
        finite, TypeError if torch.load with weights_only could not read the state.
        """
        with self._changed:
            self._raise_error()
            if self._pending is not None and self._pending.score is not None and snapshot.score is None:
                return False
            self._pending = snapshot
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def write(self, key: Hashable, capture: Callable[[], TrainingSnapshot]) -> CheckpointInfo:
        """Write the state that `key` identifies, and return its checkpoint. `capture` returns the snapshot to write.

        Waits for the current write. A pending snapshot, which is older, is written first if it is the best so far and
        dropped otherwise. Raises StorageError if the write fails; older checkpoints are then unchanged.
        """
        with self._changed:
            pending, self._pending = self._pending, None
            self._changed.wait_for(lambda: self._writing is None)
            self._raise_error()
            if pending is None or pending.score is None:
                pending = self._refused_best or pending
            self._refused_best = None
            score = pending.score if pending is not None and pending.key == key else None
            if self._newest is not None and self._is_newest(key) and score is None and self._is_not_best(pending):
                self._refusal = None
                return self._newest[1]
        if pending is not None and pending.score is not None and score is None:
            try:
                self._write(pending)
            except StorageError as error:
                self._report_failure(pending, error)
        try:
            return self._write(replace(capture(), score=score))
        except DiskFullError as error:
            self._record_refusal(error, pending)
            raise

    def write_final(self, key: Hashable, capture: Callable[[], TrainingSnapshot]) -> CheckpointInfo:
        """Write the last state of a training. If the write fails, return the newest older checkpoint.

        The failure is reported as the event `checkpoint_failed`. Raises StorageError if the write fails and there is no
        older checkpoint.
        """
        try:
            return self.write(key, capture)
        except StorageError as error:
            remaining = self.newest
            if remaining is None:
                raise
            lost = capture().step - remaining.step
            log.error(
                "the last checkpoint could not be written; an older one remains",
                steps_lost=lost,
                left_with=remaining.name,
            )
            self._listener.event(
                "checkpoint_failed",
                reason=error.message,
                left_with=remaining.name,
                left_with_step=remaining.step,
                steps_lost=lost,
            )
            return remaining

    def prune(self) -> None:
        """Remove the checkpoints that the retention does not keep.

        Called after a finite loss has shown that the newest checkpoint is usable."""
        try:
            self._listener.checkpoints_kept(self.manager.prune())
        except StorageError as error:  # not fatal, because the next call tries again
            log.error("old checkpoints could not be removed", reason=error.message)

    def prune_for_space(self) -> None:
        """Call `prune` to free space, although no finite loss has shown yet that the newest checkpoint is usable.

        Does nothing if `keep_last` is 1, because an older checkpoint must remain in case the newest is unusable.
        """
        if self.manager.retention.keep_last > 1:
            self.prune()

    def close(self) -> None:
        """Write the pending snapshot and end the thread. May be called more than once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending is not None or self._closing)
                if self._pending is None:
                    return
                self._writing, self._pending = self._pending, None
                snapshot = self._writing
            try:
                self._write(snapshot)
            except StorageError as error:
                self._report_failure(snapshot, error)
            except DivergedError as error:
                self._error = error
            except Exception as error:
                log.exception("a checkpoint could not be written")
                self._error = error
            finally:
                del snapshot  # free its memory, which the next copy may need
                with self._changed:
                    self._writing = None
                    self._changed.notify_all()

    def _write(self, snapshot: TrainingSnapshot) -> CheckpointInfo:
        info = self.manager.save(
            snapshot.number,
            snapshot.weights,
            snapshot.state,
            meta=snapshot.meta,
            vocabulary=snapshot.vocabulary,
            before_publish=self._listener.before_checkpoint,
        )
        info = replace(info, step=snapshot.step)
        with self._changed:
            self._newest = (snapshot.key, info)
            self._failed_at = self._refusal = None
        self._listener.checkpoint_saved(info)
        try:
            best = snapshot.best(f"{self.manager.directory.name}/{info.name}")
            if best is not None:
                self.manager.record_best(best)
        except StorageError as error:
            log.error("the best checkpoint could not be recorded in best.json", reason=error.message)
        if snapshot.proven:
            self.prune()
        else:
            self._listener.checkpoints_kept(self.manager.names())
        return info

    def _report_failure(self, snapshot: TrainingSnapshot, error: StorageError) -> None:
        with self._changed:
            first = self._failed_at is None
            self._failed_at = time.monotonic()
        if isinstance(error, DiskFullError):
            self._record_refusal(error, snapshot)
        log.error("a checkpoint could not be written", step=snapshot.step, reason=error.message)
        if first:  # later failures in a row are only logged
            self._listener.event("checkpoint_failed", step=snapshot.step, reason=error.message)

    def _record_refusal(self, error: DiskFullError, snapshot: TrainingSnapshot | None) -> None:
        with self._changed:
            self._refusal = error.message
            if not self._is_not_best(snapshot):
                self._refused_best = snapshot

    @staticmethod
    def _is_not_best(snapshot: TrainingSnapshot | None) -> bool:
        return snapshot is None or snapshot.score is None

    def _is_newest(self, key: Hashable) -> bool:
        return self._newest is not None and self._newest[0] == key

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
