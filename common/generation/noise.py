"""Random numbers of B rows, each from a seed of its own, so that no row depends on its neighbours in a batch.

Every step takes two numbers per row, whether they are used or not: one for the modulation, one for the token. Runs of
different gating modes with one seed therefore share the noise of their tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK_STEPS = 64
_SEED_BITS = 31


class RowNoise:
    """Uniform numbers in [0, 1), float32, made on the host in blocks of steps."""

    def __init__(self, seeds: Sequence[int], *, device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._device = device
        self._block = torch.empty(0, len(seeds), 2)
        self._next = 0

    def step(self) -> tuple[Tensor, Tensor]:
        """The numbers (B,) for the modulation and for the token of one step."""
        if self._next == len(self._block):
            rows = [torch.rand(_BLOCK_STEPS, 2, generator=generator) for generator in self._generators]
            self._block = torch.stack(rows, dim=1).to(self._device)
            self._next = 0
        numbers = self._block[self._next]
        self._next += 1
        return numbers[:, 0], numbers[:, 1]


def fresh_seed() -> int:
    """A seed from the operating system, small enough for every wire format."""
    return secrets.randbits(_SEED_BITS)
