"""Checkpoints written while the training goes on, and the last one when it leaves.

A training pays for the copy to host memory (`common.checkpoint.snapshot`); one thread serialises, hashes, flushes and
renames. At most one snapshot is being written and one waits; a newer one takes the place of the one that waits, unless
that is the best so far. A training that leaves waits for the write under way and writes the last state itself.

A failed write does not end a training: it is reported as the event `checkpoint_failed`, and older checkpoints stay. If
the disk is full, `refusal` is set and the training waits until a `write` succeeds; `write` writes a kept best snapshot
first. After any other failure the training is asked for a new snapshot after `RETRY_SECONDS`. Leaves out: what a state
consists of (`common.training`, `common.rl`), files (`common.checkpoint.manager`), the wait
(`common.training.disk_wait`).
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


class CheckpointListener(Protocol):
    """The part of `TrainingHooks` that hears of checkpoints. Called from the thread that writes."""

    def before_checkpoint(self) -> None:
        """Right before a checkpoint becomes visible: bring metrics to disk, block while the lease is in doubt."""

    def checkpoint_saved(self, info: CheckpointInfo) -> None:
        """A checkpoint is whole on disk."""

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """The checkpoints on disk now, all of them."""

    def event(self, name: str, **details: Any) -> None:
        """Something worth keeping happened."""


class CheckpointWriter:
    """Writes the checkpoints of one training. The thread starts with the first background write."""

    def __init__(
        self, manager: CheckpointManager, listener: CheckpointListener, *, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self.manager = manager
        self._listener = listener
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._waiting: TrainingSnapshot | None = None
        self._writing: TrainingSnapshot | None = None
        self._newest: tuple[Hashable, CheckpointInfo] | None = None
        self._failed_at: float | None = None
        """Monotonic; of the newest failure since the last success."""
        self._refusal: str | None = None
        """Why the newest write failed on a full disk; None after a success."""
        self._refused_best: TrainingSnapshot | None = None
        """The best snapshot so far, if the disk was too full for it. The next `write` writes it first."""
        self._mistake: Exception | None = None
        """An error that is no fault of the disk, for the training thread: also of a state that is not finite."""
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def newest(self) -> CheckpointInfo | None:
        """The newest checkpoint of this training on disk."""
        with self._changed:
            return None if self._newest is None else self._newest[1]

    @property
    def refusal(self) -> str | None:
        """Why the disk was too full for the newest write. None when a write has succeeded since, or none has failed."""
        with self._changed:
            return self._refusal

    def wait_until_idle(self) -> None:
        """Block until no snapshot is being written and none waits to be written."""
        with self._changed:
            self._changed.wait_for(lambda: self._writing is None and (self._waiting is None or self._thread is None))

    @property
    def retry_is_due(self) -> bool:
        """Whether the newest write failed long enough ago to be tried again, and no other one is under way."""
        with self._changed:
            if self._waiting is not None or self._writing is not None:
                return False
            return self._failed_at is not None and time.monotonic() - self._failed_at >= self._retry_seconds

    def adopt(self, info: CheckpointInfo, key: Hashable) -> None:
        """The training goes on from `info`, which holds the state `key`."""
        with self._changed:
            self._newest = (key, info)

    def has_state(self, key: Hashable) -> bool:
        """Whether the state `key` is on disk or on its way there."""
        with self._changed:
            under_way = (self._waiting, self._writing)
            return self._is_newest(key) or any(one is not None and one.key == key for one in under_way)

    def submit(self, snapshot: TrainingSnapshot) -> bool:
        """Write `snapshot` in the background; False when it was left out because the best so far still waits.

        Raises what went wrong in the thread when that was a mistake of ours (TypeError of a state that cannot be read
        back) or the state was not finite (DivergedError), not when the disk refused.
        """
        with self._changed:
            self._raise_mistake()
            if self._waiting is not None and self._waiting.score is not None and snapshot.score is None:
                return False
            self._waiting = snapshot
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def write(self, key: Hashable, capture: Callable[[], TrainingSnapshot]) -> CheckpointInfo:
        """The checkpoint of the state `key`, on disk when this returns; `capture` need not copy.

        Waits for what is being written. What waits is older: it is dropped, or written first if it is the best so far.
        Raises StorageError when the disk refuses, older checkpoints are untouched then.
        """
        with self._changed:
            waiting, self._waiting = self._waiting, None
            self._changed.wait_for(lambda: self._writing is None)
            self._raise_mistake()
            if waiting is None or waiting.score is None:
                waiting = self._refused_best or waiting
            self._refused_best = None
            score = waiting.score if waiting is not None and waiting.key == key else None
            if self._newest is not None and self._is_newest(key) and score is None and self._unscored(waiting):
                self._refusal = None
                return self._newest[1]
        if waiting is not None and waiting.score is not None and score is None:
            try:
                self._write(waiting)
            except StorageError as error:
                self._fail(waiting, error)
        try:
            return self._write(replace(capture(), score=score))
        except DiskFullError as error:
            self._refuse(error, waiting)
            raise

    def write_final(self, key: Hashable, capture: Callable[[], TrainingSnapshot]) -> CheckpointInfo:
        """Like `write`, for a training that ends: return the newest older checkpoint when the disk refuses the write.

        This is reported as the event `checkpoint_failed`. Raises StorageError when there is no checkpoint at all.
        """
        try:
            return self.write(key, capture)
        except StorageError as error:
            remaining = self.newest
            if remaining is None:
                raise
            lost = capture().step - remaining.step
            log.error(
                "the last steps are lost, an older checkpoint remains",
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
        """Remove what need not be kept, once the newest checkpoint is known to be worth it."""
        try:
            self._listener.checkpoints_kept(self.manager.prune())
        except StorageError as error:  # the checkpoints are safe; older ones stay until the next
            log.error("checkpoints could not be pruned", reason=error.message)

    def prune_for_space(self) -> None:
        """Call `prune` to free space, even though no finite step has followed the newest checkpoint yet.

        Does nothing when `keep_last` is 1, because an older checkpoint has to remain as a fallback.
        """
        if self.manager.retention.keep_last > 1:
            self.prune()

    def close(self) -> None:
        """Write what waits and end the thread. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                if self._waiting is None:
                    return
                self._writing, self._waiting = self._waiting, None
                snapshot = self._writing
            try:
                self._write(snapshot)
            except StorageError as error:
                self._fail(snapshot, error)
            except DivergedError as error:
                self._mistake = error
            except Exception as error:
                log.exception("a checkpoint could not be written")
                self._mistake = error
            finally:
                del snapshot  # its memory is free for the next copy
                with self._changed:
                    self._writing = None
                    self._changed.notify_all()

    def _write(self, snapshot: TrainingSnapshot) -> CheckpointInfo:
        info = self.manager.save(
            snapshot.number,
            snapshot.weights,
            snapshot.state,
            meta=snapshot.meta,
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
                self.manager.name_best(best)
        except StorageError as error:
            log.error("the best checkpoint could not be named", reason=error.message)
        if snapshot.proven:
            self.prune()
        else:
            self._listener.checkpoints_kept(self.manager.names())
        return info

    def _fail(self, snapshot: TrainingSnapshot, error: StorageError) -> None:
        with self._changed:
            first = self._failed_at is None
            self._failed_at = time.monotonic()
        if isinstance(error, DiskFullError):
            self._refuse(error, snapshot)
        log.error("a checkpoint could not be written", step=snapshot.step, reason=error.message)
        if first:  # one event per series of failures; the log has each
            self._listener.event("checkpoint_failed", step=snapshot.step, reason=error.message)

    def _refuse(self, error: DiskFullError, snapshot: TrainingSnapshot | None) -> None:
        with self._changed:
            self._refusal = error.message
            if not self._unscored(snapshot):
                self._refused_best = snapshot

    @staticmethod
    def _unscored(snapshot: TrainingSnapshot | None) -> bool:
        return snapshot is None or snapshot.score is None

    def _is_newest(self, key: Hashable) -> bool:
        return self._newest is not None and self._newest[0] == key

    def _raise_mistake(self) -> None:
        if self._mistake is not None:
            mistake, self._mistake = self._mistake, None
            raise mistake
