"""Which checkpoints stay on disk: the newest, every n-th, and the best. Pure; `CheckpointManager` removes the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointRetention:
    """How much is kept. Numbers are those of the folders: optimiser steps, or a controller's iterations."""

    keep_last: int
    """Newest sound checkpoints of different numbers."""
    keep_every: int | None = None
    """Also every checkpoint whose number is a multiple of this."""

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(f"keep_last is {self.keep_last}; at least 1 checkpoint has to stay")
        if self.keep_every is not None and self.keep_every < 1:
            raise ValueError(f"keep_every is {self.keep_every}; it counts steps, so at least 1")

    def kept(self, found: Sequence[tuple[int, str]], best: str | None) -> list[str]:
        """The names to keep of `found`, sound checkpoints as (number, name), oldest first.

        Of several with one number only the newest stays, and `best`.
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
