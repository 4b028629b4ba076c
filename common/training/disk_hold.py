"""What a training does while a disk has less room than its reserve: it stands still in the phase `waiting_for_disk`.

`hold_at_boundary` is for trainings, between two steps: the state is saved where it fits into the reserve, so that a
worker that dies meanwhile, a pause and a stop lose nothing; then it waits until there is room again, or somebody wants
something else. A checkpoint that found no room in spite of the reserve is written before the next step.
`wait_for_disk` is for work without such a state, `write_when_there_is_room` for files that are written once.
Leaves out: looking at disks (`common.disk`), saying so (the hooks), torch.
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

LISTEN_SECONDS = 0.1
"""Between two looks at the wish."""
BEAT_SECONDS = 2.0
"""Between two signs of life with the newest figures; far below every limit on silence."""
RETRY_SECONDS = 5.0
"""Between two tries of a write that was refused although there is room (a quota, no inodes)."""
EVERY_WISH = frozenset(StopRequest)
LEAVING = EVERY_WISH - {StopRequest.COMPLETE}


class StoppedWaiting(Exception):
    """Somebody wants out before there was room for a file."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request)
        self.request = request


class _Writer(Protocol):
    @property
    def refusal(self) -> str | None: ...

    def settle(self) -> None: ...

    def make_room(self) -> None: ...


class Savable(Protocol):
    """The part of a training's state that is needed here."""

    @property
    def writer(self) -> _Writer:
        """Writes its checkpoints."""
        ...

    @property
    def checkpoint_bytes(self) -> int:
        """About what the next checkpoint takes."""
        ...

    def save(self) -> SavedCheckpoint:
        """The last finished step, on disk when this returns. DiskFullError."""
        ...


def wait_for_disk(
    hooks: TrainingHooks, *, obeyed: Collection[StopRequest] = EVERY_WISH, data: bool = False
) -> StopRequest | None:
    """Return when there is room, at once as a rule, or when a wish in `obeyed` is there: that wish.

    `data`: on the disk of the data folder, too.
    """
    shortage = hooks.disk_shortage(data=data)
    if shortage is None:
        return None
    with _holding(hooks, shortage, obeyed) as hold:
        while not hold.wish and (shortage := hooks.disk_shortage(data=data)):
            hold.wait(shortage)
        return hold.wish


def write_when_there_is_room(
    hooks: TrainingHooks, write: Callable[[], T], *, obeyed: Collection[StopRequest] = LEAVING, data: bool = False
) -> T:
    """The result of `write`, which is called when there is room, and again when it met a full disk all the same.

    Who was asked to complete takes the room of the reserve. Raises StoppedWaiting for a wish in `obeyed` meanwhile.
    """
    if hooks.requested_stop() is not StopRequest.COMPLETE:
        _go_on(wait_for_disk(hooks, obeyed=obeyed, data=data))
    try:
        return write()
    except DiskFullError as error:
        log.error("a file found no room; it is written again when there is some", reason=error.message)
        refused = hooks.disk_refused(error.message, data=data)
    with _holding(hooks, refused, obeyed) as hold:
        while True:
            _go_on(_wait_for_room(hooks, hold, refused, data=data))
            try:
                return write()
            except DiskFullError as error:
                refused = hooks.disk_refused(error.message, data=data)


def wait_for_room(hooks: TrainingHooks, reason: str) -> StopRequest | None:
    """Return when there is room after a write was refused for `reason`, not at once, or when there is a wish."""
    refused = hooks.disk_refused(reason)
    with _holding(hooks, refused, EVERY_WISH) as hold:
        return _wait_for_room(hooks, hold, refused)


def hold_at_boundary(hooks: TrainingHooks, state: Savable) -> float:
    """Stand still while there is too little room, with the last finished step saved if that fits; seconds it took.

    Returns as soon as there is any wish; the caller looks at it as ever. Costs a look at the disk each second.
    """
    shortage = _shortage(hooks, state)
    if shortage is None:
        return 0.0
    # Said first: a large checkpoint may take longer than a step is allowed to.
    hooks.waiting_for_disk(shortage)
    state.writer.settle()  # what it was writing takes room, and what it removes afterwards frees some
    shortage = _shortage(hooks, state)
    if shortage is None:
        hooks.waiting_for_disk(None)
        return 0.0
    begun = time.monotonic()
    saved = False

    def save_first() -> dict[str, bool]:
        nonlocal saved
        saved = _save_where_it_fits(state, shortage)
        return {"saved": saved}

    with _holding(hooks, shortage, EVERY_WISH, first=save_first) as hold:
        tried_at = time.monotonic()
        while not hold.wish and (lacking := _shortage(hooks, state)):
            hold.wait(lacking)
            unsaved = not saved or state.writer.refusal is not None
            if unsaved and not hold.wish and time.monotonic() - tried_at >= RETRY_SECONDS:
                saved = _save_where_it_fits(state, lacking)
                tried_at = time.monotonic()
    return time.monotonic() - begun


def _wait_for_room(hooks: TrainingHooks, hold: _Hold, refused: Shortage, *, data: bool = False) -> StopRequest | None:
    """Until the next try makes sense: where there seems to be room it is refused for another reason, for a while."""
    shortage: Shortage | None = refused
    while shortage is not None:
        hold.wait(shortage, seconds=RETRY_SECONDS if shortage.reason else BEAT_SECONDS)
        if hold.wish is not None:
            return hold.wish
        shortage = hooks.disk_shortage(data=data)
    return None


def _shortage(hooks: TrainingHooks, state: Savable) -> Shortage | None:
    size = state.checkpoint_bytes
    found = hooks.disk_shortage(next_write_bytes=size)
    refusal = state.writer.refusal
    if found is not None or refusal is None:
        return found
    return hooks.disk_refused(refusal, next_write_bytes=size)


def _save_where_it_fits(state: Savable, shortage: Shortage) -> bool:
    """Save into the reserve, where a quarter of that is left, so that nobody has to later; whether it is saved."""
    saved = _fits(state, shortage) and _save(state)
    if saved:
        state.writer.make_room()
    return saved


def _fits(state: Savable, shortage: Shortage) -> bool:
    """Whether a checkpoint leaves a quarter of the reserve to logs, metrics and the others on this disk.

    Where a write was refused although there seems to be room only another try shows it.
    """
    return shortage.reason is not None or shortage.free_bytes >= state.checkpoint_bytes + shortage.reserve_bytes // 4


def _save(state: Savable) -> bool:
    try:
        info = state.save()
    except StorageError as error:  # whatever the disk says now: it is not the moment to fail
        log.error("the last step is kept in memory until there is room for it", reason=error.message)
        return False
    log.info("the last step is saved", checkpoint=info.name)
    return True


def _go_on(wish: StopRequest | None) -> None:
    if wish is not None:
        raise StoppedWaiting(wish)


class _Hold:
    """One wait."""

    def __init__(self, hooks: TrainingHooks, obeyed: Collection[StopRequest]) -> None:
        self._hooks, self._obeyed = hooks, obeyed
        self._told_at = time.monotonic()

    @property
    def wish(self) -> StopRequest | None:
        """What somebody wants, where it is obeyed."""
        wish = self._hooks.requested_stop()
        return wish if wish in self._obeyed else None

    def wait(self, shortage: Shortage, *, seconds: float = BEAT_SECONDS) -> None:
        """Let `seconds` pass, or less when there is a wish; say now and then what is missing: it is a sign of life."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and self.wish is None:
            if now - self._told_at >= BEAT_SECONDS:
                self._told_at = now
                self._hooks.waiting_for_disk(shortage)
            time.sleep(min(LISTEN_SECONDS, until - now))
        self._hooks.wait_while_suspended()


@contextmanager
def _holding(
    hooks: TrainingHooks,
    shortage: Shortage,
    obeyed: Collection[StopRequest],
    *,
    first: Callable[[], dict[str, Any]] = dict,
) -> Iterator[_Hold]:
    """Say that a wait begins, and, whatever ends it, that it is over.

    The event comes after `first`, which returns details for it: whoever reads that the step is saved may rely on it.
    """
    begun = time.monotonic()
    hold = _Hold(hooks, obeyed)
    hooks.waiting_for_disk(shortage)
    try:
        hooks.event("waiting_for_disk", **shortage.details(), **first())
        yield hold
    finally:
        hooks.waiting_for_disk(None)
        wish = hold.wish
        left_for = {} if wish is None else {"left_for": wish.value}
        hooks.event("disk_wait_ended", seconds=round(time.monotonic() - begun, 1), **left_for)
