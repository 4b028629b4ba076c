"""Selects the checkpoints to keep: the newest, every n-th and the best. `CheckpointManager` removes the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointRetention:
    """The rule that selects the checkpoints to keep.

    The number of a checkpoint is the one in its folder's name: the optimiser step, or a controller training's
    iteration.
    """

    keep_last: int
    """How many of the newest intact checkpoints to keep; checkpoints with the same number count as one."""
    keep_every: int | None = None
    """Checkpoints whose number is a multiple of `keep_every` are kept as well. With None, this rule does not apply."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}; it must be at least 1")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}; it must be at least 1")

    def names_to_keep(self, found: Sequence[tuple[int, str]], best: str | None) -> list[str]:
        """Return the names of the checkpoints to keep. `found` lists the intact ones as (number, name), oldest first.

        Of several checkpoints with the same number, only the newest is kept. `best` is always kept.
        """
        newest_of = dict(found)  # for equal numbers, the later (newer) entry wins
        numbers = list(newest_of)
        last = set(numbers[-self.keep_last :])
        return [
            name
            for number, name in found
            if name == best or (newest_of[number] == name and (number in last or self._is_milestone(number)))
        ]

    def _is_milestone(self, number: int) -> bool:
        return self.keep_every is not None and number > 0 and number % self.keep_every == 0
