"""Keys and values of the sequences in a running batch. Rows 0..n−1 are in use: a step reads views and copies nothing.

A row that leaves is overwritten by the last one (`move`). Memory is (L, rows, H, capacity, K) each for keys and values;
rows are added by doubling. What a row held before stays until it is overwritten, behind its length. Lengths live on the
device for the maths and on the host for shapes. Leaves out: which row is whose (`window`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.generation.cpu.huge_pages import untouched_zeros


class Step(NamedTuple):
    """Where the next position of n rows goes: positions (n,), places (n·H,) in a layer's cache seen as lines of one
    head and position each, and what is added to the scores it attends with (n, 1, 1, span): 0 or −inf. Rows of one
    length need neither `places` nor `mask`."""

    positions: Tensor
    places: Tensor | None
    mask: Tensor | None
    span: int


class SlotCache:
    """`lengths` holds the positions of every row in use, on the host."""

    def __init__(
        self,
        num_layers: int,
        num_heads: int,
        capacity: int,
        head_dim: int,
        *,
        rows: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (num_layers, rows, num_heads, capacity, head_dim)
        self.keys = untouched_zeros(shape, dtype, device)
        self.values = untouched_zeros(shape, dtype, device)
        self._first_row: list[tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
        self.lengths: list[int] = []
        self.capacity = capacity
        self._positions = torch.arange(capacity, device=device)
        self._first_places = self._lines()
        self._device_lengths = torch.zeros(rows, device=device, dtype=torch.int64)

    @property
    def first_row(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per layer keys and values of row 0, as lines (H·capacity, K) and as heads (1, H, capacity, K); made once."""
        if self._first_row is None:
            rows = [(keys[:1], values[:1]) for keys, values in zip(self.keys, self.values, strict=True)]
            self._first_row = [(keys.flatten(0, 2), values.flatten(0, 2), keys, values) for keys, values in rows]
        return self._first_row

    @property
    def nbytes(self) -> int:
        """What keys and values take."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, rows: int) -> None:
        """Have memory for so many rows; what is there is kept."""
        held = self.keys.shape[1]
        if rows <= held:
            return
        more = max(rows, 2 * held) - held
        self.keys, self.values = self._longer(self.keys, more), self._longer(self.values, more)
        self._first_row = None
        self._first_places = self._lines()
        self._device_lengths = torch.cat((self._device_lengths, self._device_lengths.new_zeros(more)))

    def write(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """Positions 0..T−1 of rows first..first+n−1 of a layer: keys and values (n, H, T, K)."""
        n, _, T, _ = keys.shape
        self.keys[layer, first : first + n, :, :T] = keys
        self.values[layer, first : first + n, :, :T] = values

    def spread(self, first: int, sources: list[int], length: int) -> None:
        """Rows first, first+1, … become what rows `sources` are in their first `length` positions."""
        end = first + len(sources)
        self.keys[:, first:end, :, :length] = self.keys[:, sources, :, :length]
        self.values[:, first:end, :, :length] = self.values[:, sources, :, :length]

    def set_lengths(self, first: int, lengths: list[int]) -> None:
        """Rows first, first+1, … hold so many positions; rows beyond those in use are taken into use."""
        self.lengths[first : first + len(lengths)] = lengths
        self._device_lengths[first : first + len(lengths)] = torch.tensor(lengths)

    def next_position(self) -> int:
        """The largest position that any row in use gets next. Raises ValueError when a row is full."""
        longest = max(self.lengths)
        if longest >= self.capacity:
            raise ValueError(f"a row holds {longest} positions, all there are; prefill it again with its last tokens")
        return longest

    def step(self) -> Step:
        """Room for one more position in every row in use. Raises ValueError when a row is full."""
        longest = self.next_position()
        n = len(self.lengths)
        span = longest + 1
        positions = self._device_lengths[:n]
        if min(self.lengths) == longest:
            return Step(positions, None, None, span)
        hidden = self._positions[:span] > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.keys.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        places = (self._first_places[:n] + positions[:, None]).view(-1)
        return Step(positions, places, mask[:, None, None, :], span)

    def append(self, layer: int, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one position per row, keys and values (n, H, K); returns (n, H, span, K) of both."""
        n, H, K = keys.shape
        held_keys, held_values = self.keys[layer], self.values[layer]
        if step.places is None:
            held_keys[:n, :, step.span - 1] = keys
            held_values[:n, :, step.span - 1] = values
        else:
            held_keys.view(-1, K).index_copy_(0, step.places, keys.reshape(n * H, K).to(held_keys.dtype))
            held_values.view(-1, K).index_copy_(0, step.places, values.reshape(n * H, K).to(held_values.dtype))
        return held_keys[:n, :, : step.span], held_values[:n, :, : step.span]

    def advance(self) -> None:
        """Count the position that `append` wrote in every layer."""
        self._device_lengths[: len(self.lengths)] += 1
        self.lengths = [length + 1 for length in self.lengths]

    def remove(self, row: int, *, clear: bool = False) -> None:
        """The row leaves; the last one takes its place.

        `clear` what it held where that is not finite: hidden by the mask it counts 0 times, and 0 times NaN is NaN.
        """
        last = len(self.lengths) - 1
        if clear:
            self.keys[:, row] = 0.0
            self.values[:, row] = 0.0
        if row != last:
            T = self.lengths[last]
            self.keys[:, row, :, :T] = self.keys[:, last, :, :T]
            self.values[:, row, :, :T] = self.values[:, last, :, :T]
            self._device_lengths[row] = self._device_lengths[last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def _lines(self) -> Tensor:
        """Where the first position of each row and head lies, (rows, H)."""
        _, rows, heads, capacity, _ = self.keys.shape
        return (torch.arange(rows * heads, device=self.keys.device) * capacity).view(rows, heads)

    @staticmethod
    def _longer(held: Tensor, more: int) -> Tensor:
        rows = held.shape[1]
        longer = untouched_zeros((held.shape[0], rows + more, *held.shape[2:]), held.dtype, held.device)
        longer[:, :rows] = held
        return longer
