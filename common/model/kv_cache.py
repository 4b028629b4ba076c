"""Keys and values of the positions decoded so far. Every sequence has its own row in the cache and its own length.

Memory is allocated once: (L, B, H, capacity, K) each for keys and values. Lengths are kept on the device for the
computation, and as upper bounds on the host, so that a full row is detected without a device synchronisation. The
cached keys and values of a position depend on the modulation with which they were computed. There is no sliding window:
the caller prefills a full row again with its last tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SPAN_STEP = 32
"""Attention reads the cache up to the longest row, rounded up to a multiple of `SPAN_STEP`, so that shapes rarely
change."""


class KVCache:
    """Keys and values of B sequences.

    `lengths` (B,) int64 is the number of positions in each row; `bounds` are upper bounds of the lengths on the host.
    """

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        capacity: int,
        head_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (num_layers, batch_size, num_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.int64)
        self.bounds = [0] * batch_size
        self.capacity = capacity
        self._positions = torch.arange(capacity, device=device)
        self._rows = torch.arange(batch_size, device=device)

    @property
    def batch_size(self) -> int:
        """B, the number of rows of the cache."""
        return len(self.bounds)

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Empty the given rows, or all rows if `rows` is None. Their next token is then at position 0."""
        if rows is None:
            self.lengths.zero_()
            self.bounds = [0] * self.batch_size
            return
        for row in rows:
            self.lengths[row] = 0
            self.bounds[row] = 0

    def fill(self, layer: int, keys: Tensor, values: Tensor, rows: Sequence[int] | None) -> None:
        """Write keys and values (n, H, T, K) of one layer to positions 0..T−1 of the n `rows` (None: all rows)."""
        T = keys.shape[2]
        if rows is None:
            self.keys[layer, :, :, :T] = keys
            self.values[layer, :, :, :T] = values
            return
        for i, row in enumerate(rows):
            self.keys[layer, row, :, :T] = keys[i]
            self.values[layer, row, :, :T] = values[i]

    def set_lengths(self, lengths: Tensor | None, padded: int, rows: Sequence[int] | None) -> None:
        """Set the lengths after a prefill of `padded` positions, to `lengths` (n,) if given, else to `padded`."""
        targets = list(range(self.batch_size)) if rows is None else list(rows)
        exact = lengths.tolist() if lengths is not None and lengths.device.type == "cpu" else None
        for i, row in enumerate(targets):
            self.bounds[row] = padded if exact is None else int(exact[i])
        if rows is None:
            if lengths is None:
                self.lengths.fill_(padded)
            else:
                self.lengths.copy_(lengths)
            return
        for i, row in enumerate(targets):
            self.lengths[row] = padded if lengths is None else lengths[i]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values (B, H, K) of one position per row.

        Returns all cached keys and values of the layer, each (B, H, span, K).
        """
        self.keys[layer, self._rows, :, self.lengths] = keys.to(self.keys.dtype)
        self.values[layer, self._rows, :, self.lengths] = values.to(self.values.dtype)
        span = self.span
        return self.keys[layer, :, :, :span], self.values[layer, :, :, :span]

    @property
    def span(self) -> int:
        """Number of positions that attention reads after the next token is written."""
        needed = max(self.bounds) + 1
        return min(-(-needed // SPAN_STEP) * SPAN_STEP, self.capacity)

    def mask(self) -> Tensor:
        """Return (B, 1, 1, span) bool: the positions that each row may attend to, including its next token."""
        return (self._positions[: self.span] <= self.lengths[:, None])[:, None, None, :]

    def check_room(self) -> None:
        """Raise ValueError if, according to the bounds on the host, a row has no space for one more token."""
        full = [row for row, bound in enumerate(self.bounds) if bound >= self.capacity]
        if full:
            raise ValueError(
                f"cache rows {full} are full with {self.capacity} positions; "
                "prefill them again with the last tokens, or reset them"
            )

    def advance(self) -> None:
        """Increase all lengths by 1, after `append` has written a position in every layer."""
        self.lengths += 1
        self.bounds = [bound + 1 for bound in self.bounds]
