"""Waits in the phase `waiting_for_disk` while a disk has less free space than its reserve.

A training calls `wait_at_boundary` between two steps. If disk space is short, this function first saves the state,
provided that it fits into the reserve; then a pause, a stop or a crash of the worker during the wait loses no step.
After that, it waits until there is space again or a stop request arrives. If the disk became full while a checkpoint
was written, the write is repeated before the next step. `wait_for_disk` is for work without a state to save,
`write_when_disk_has_space` for files that are written once. `common.disk` measures the free space; the hooks report the
wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from common.disk import Shortage
from common.errors import DiskFullError, StorageError
from common.logging import get_logger
from common.training.hooks import SavedCheckpoint, StopRequest, TrainingHooks

log = get_logger(__name__)
T = TypeVar("T")

POLL_SECONDS = 0.1
"""Seconds between two checks for a stop request."""
REPORT_SECONDS = 2.0
"""Seconds between two reports of the shortage. Each report also proves that the process is alive, so this interval is
far shorter than the time limits of the supervisor."""
RETRY_SECONDS = 5.0
"""Seconds between two attempts of a write that fails although the disk has free space (because of a quota, or no
inodes)."""
EVERY_REQUEST = frozenset(StopRequest)
"""All kinds of stop requests."""
EARLY_STOP_REQUESTS = EVERY_REQUEST - {StopRequest.COMPLETE}
"""The stop requests after which a training ends without writing its final files."""


class StoppedWaiting(Exception):
    """Raised when a stop request arrives before the disk has space for a file."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class _Writer(Protocol):
    @property
    def refusal(self) -> str | None: ...

    def wait_until_idle(self) -> None: ...

    def prune_for_space(self) -> None: ...


class Savable(Protocol):
    """The state of a training, which can be written as a checkpoint."""

    @property
    def writer(self) -> _Writer:
        """Return the writer of the training's checkpoints."""
        ...

    @property
    def checkpoint_bytes(self) -> int:
        """Return the expected size of the next checkpoint in bytes."""
        ...

    def save(self) -> SavedCheckpoint:
        """Write the last finished step to disk. Raises DiskFullError when the disk is full."""
        ...


def wait_for_disk(
    hooks: TrainingHooks, *, obeyed: Collection[StopRequest] = EVERY_REQUEST, data: bool = False
) -> StopRequest | None:
    """Wait until there is disk space, then return None; if a stop request in `obeyed` arrives first, return it.

    Checks the disk of the experiments and, with `data`, also the disk of the data folder.
    """
    shortage = hooks.disk_shortage(data=data)
    if shortage is None:
        return None
    with _waiting_for_disk(hooks, shortage, obeyed) as disk_wait:
        while not disk_wait.request and (shortage := hooks.disk_shortage(data=data)):
            disk_wait.wait(shortage)
        return disk_wait.request


def write_when_disk_has_space(
    hooks: TrainingHooks,
    write: Callable[[], T],
    *,
    obeyed: Collection[StopRequest] = EARLY_STOP_REQUESTS,
    data: bool = False,
) -> T:
    """Call `write` once there is disk space, and again after each DiskFullError; return its result.

    After a request to complete, `write` is called at once and may use the reserve. Raises StoppedWaiting on a stop
    request in `obeyed` during the wait.
    """
    if hooks.requested_stop() is not StopRequest.COMPLETE:
        _raise_if_stopped(wait_for_disk(hooks, obeyed=obeyed, data=data))
    try:
        return write()
    except DiskFullError as error:
        log.error(
            "a file cannot be written because the disk is full; the write is repeated when there is space",
            reason=error.message,
        )
        refused = hooks.disk_refused(error.message, data=data)
    with _waiting_for_disk(hooks, refused, obeyed) as disk_wait:
        while True:
            _raise_if_stopped(_wait_to_retry_write(hooks, disk_wait, refused, data=data))
            try:
                return write()
            except DiskFullError as error:
                refused = hooks.disk_refused(error.message, data=data)


def wait_to_retry_write(hooks: TrainingHooks, reason: str) -> StopRequest | None:
    """Wait after a write failed with `reason`.

    Return None once a retry may succeed. If a stop request arrives earlier, return the request.
    """
    refused = hooks.disk_refused(reason)
    with _waiting_for_disk(hooks, refused, EVERY_REQUEST) as disk_wait:
        return _wait_to_retry_write(hooks, disk_wait, refused)


def wait_at_boundary(hooks: TrainingHooks, state: Savable) -> float:
    """Wait while the disk has too little space; return the time spent in seconds.

    Before the wait, saves the state after the last finished step if this state fits into the reserve. Returns early on
    any stop request, which the caller handles as usual. Checks the disk at most once a second.
    """
    shortage = _shortage(hooks, state)
    if shortage is None:
        return 0.0
    # Report the wait before `wait_until_idle`: a large checkpoint that is being written may take longer than the time
    # limit of a step.
    hooks.waiting_for_disk(shortage)
    state.writer.wait_until_idle()  # a running write uses space, and the removal of old checkpoints frees some
    shortage = _shortage(hooks, state)
    if shortage is None:
        hooks.waiting_for_disk(None)
        return 0.0
    started = time.monotonic()
    saved = False

    def save_before_waiting() -> dict[str, bool]:
        nonlocal saved
        saved = _save_into_reserve(state, shortage)
        return {"saved": saved}

    with _waiting_for_disk(hooks, shortage, EVERY_REQUEST, first=save_before_waiting) as disk_wait:
        tried_at = time.monotonic()
        while not disk_wait.request and (current := _shortage(hooks, state)):
            disk_wait.wait(current)
            unsaved = not saved or state.writer.refusal is not None
            if unsaved and not disk_wait.request and time.monotonic() - tried_at >= RETRY_SECONDS:
                saved = _save_into_reserve(state, current)
                tried_at = time.monotonic()
    return time.monotonic() - started


def _wait_to_retry_write(
    hooks: TrainingHooks, disk_wait: _DiskWait, refused: Shortage, *, data: bool = False
) -> StopRequest | None:
    """Wait until a retry may succeed. Return the stop request that ended the wait, or None.

    If writes fail although the disk has free space, a retry is due after RETRY_SECONDS.
    """
    shortage: Shortage | None = refused
    while shortage is not None:
        disk_wait.wait(shortage, seconds=RETRY_SECONDS if shortage.reason else REPORT_SECONDS)
        if disk_wait.request is not None:
            return disk_wait.request
        shortage = hooks.disk_shortage(data=data)
    return None


def _shortage(hooks: TrainingHooks, state: Savable) -> Shortage | None:
    size = state.checkpoint_bytes
    found = hooks.disk_shortage(next_write_bytes=size)
    refusal = state.writer.refusal
    if found is not None or refusal is None:
        return found
    return hooks.disk_refused(refusal, next_write_bytes=size)


def _save_into_reserve(state: Savable, shortage: Shortage) -> bool:
    """Save a checkpoint if it leaves a quarter of the reserve free. Return whether the state is saved."""
    saved = _fits(state, shortage) and _save(state)
    if saved:
        state.writer.prune_for_space()
    return saved


def _fits(state: Savable, shortage: Shortage) -> bool:
    """Return whether a checkpoint leaves a quarter of the reserve free for logs, metrics and other users of this disk.

    Also return True if a write failed although the disk has free space, because only another attempt shows whether a
    write succeeds.
    """
    return shortage.reason is not None or shortage.free_bytes >= state.checkpoint_bytes + shortage.reserve_bytes // 4


def _save(state: Savable) -> bool:
    try:
        info = state.save()
    except StorageError as error:  # after any disk error, the training waits and retries
        log.error("the last step cannot be saved and stays in memory until the disk has space", reason=error.message)
        return False
    log.info("the last step was saved before the wait for disk space", checkpoint=info.name)
    return True


def _raise_if_stopped(request: StopRequest | None) -> None:
    if request is not None:
        raise StoppedWaiting(request)


class _DiskWait:
    """One wait for disk space, which checks for stop requests and reports the shortage at intervals."""

    def __init__(self, hooks: TrainingHooks, obeyed: Collection[StopRequest]) -> None:
        self._hooks, self._obeyed = hooks, obeyed
        self._reported_at = time.monotonic()

    @property
    def request(self) -> StopRequest | None:
        """Return the current stop request if it can end this wait, otherwise None."""
        request = self._hooks.requested_stop()
        return request if request in self._obeyed else None

    def wait(self, shortage: Shortage, *, seconds: float = REPORT_SECONDS) -> None:
        """Wait for `seconds`, or until a stop request.

        Every REPORT_SECONDS, report `shortage` to show that the process is alive.
        """
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and self.request is None:
            if now - self._reported_at >= REPORT_SECONDS:
                self._reported_at = now
                self._hooks.waiting_for_disk(shortage)
            time.sleep(min(POLL_SECONDS, until - now))
        self._hooks.wait_while_suspended()


@contextmanager
def _waiting_for_disk(
    hooks: TrainingHooks,
    shortage: Shortage,
    obeyed: Collection[StopRequest],
    *,
    first: Callable[[], dict[str, Any]] = dict,
) -> Iterator[_DiskWait]:
    """Report the start of a wait, and its end even after an exception.

    Calls `first`, which may save the last step, and adds its result to the event `waiting_for_disk`. Because the event
    is reported after this call, a step that the event reports as saved is on disk.
    """
    started = time.monotonic()
    disk_wait = _DiskWait(hooks, obeyed)
    hooks.waiting_for_disk(shortage)
    try:
        hooks.event("waiting_for_disk", **shortage.details(), **first())
        yield disk_wait
    finally:
        hooks.waiting_for_disk(None)
        request = disk_wait.request
        left_for = {} if request is None else {"left_for": request.value}
        hooks.event("disk_wait_ended", seconds=round(time.monotonic() - started, 1), **left_for)
