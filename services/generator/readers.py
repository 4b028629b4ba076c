"""Which api processes have gone, by the marks that they renew: their clients wait for nothing any more.

One is held for gone when its mark, seen before, was missing twice in a row, seconds apart: a Redis that was emptied has
it back by then. Leaves out: asking Redis (`emitter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LOOK_SECONDS = 5.0
"""Between two looks at the marks; they are renewed every second."""
MISSES = 2


class Readers:
    """For one thread."""

    def __init__(self) -> None:
        self._looked_at = 0.0
        self._missed: dict[str, int] = {}

    def due(self, request_ids: Iterable[str], now: float) -> list[str]:
        """The api processes to ask for now, of these requests; none while it is not time."""
        if now - self._looked_at < LOOK_SECONDS:
            return []
        return sorted({reader for reader, dot, _ in (its.partition(".") for its in request_ids) if dot})

    def gone(self, asked: Sequence[str], marks: Sequence[object], now: float) -> set[str]:
        """Those of `asked` that are gone; a mark is None where there is none."""
        self._looked_at = now
        missed = {}
        for reader, mark in zip(asked, marks, strict=True):
            if mark is not None:
                missed[reader] = 0
            elif reader in self._missed:
                missed[reader] = self._missed[reader] + 1
        self._missed = missed
        return {reader for reader, times in missed.items() if times >= MISSES}
