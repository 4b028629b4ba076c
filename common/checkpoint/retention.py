"""Decides which checkpoints stay on disk: the newest, every n-th and the best. `CheckpointManager` removes the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointRetention:
    """The rule that selects the checkpoints to keep.

    The numbers are those of the folders: optimiser steps, or iterations of a controller training.
    """

    keep_last: int
    """Number of newest intact checkpoints to keep, counting each number once."""
    keep_every: int | None = None
    """Every checkpoint whose number is a multiple of this is kept as well."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}; it must be at least 1")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}; it must be at least 1")

    def names_to_keep(self, found: Sequence[tuple[int, str]], best: str | None) -> list[str]:
        """Return the names to keep of `found`, which lists intact checkpoints as (number, name), oldest first.

        Of several checkpoints with the same number, only the newest is kept. `best` is always kept.
        """
        newest_of = dict(found)  # later entries replace earlier ones of the same number
        numbers = list(newest_of)
        last = set(numbers[-self.keep_last :])
        return [
            name
            for number, name in found
            if name == best or (newest_of[number] == name and (number in last or self._is_milestone(number)))
        ]

    def _is_milestone(self, number: int) -> bool:
        return self.keep_every is not None and number > 0 and number % self.keep_every == 0
