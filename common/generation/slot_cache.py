"""Keys and values of the sequences in a running batch.

Slots 0..n−1 are in use, so that a step reads views and copies nothing. When a sequence is removed, the sequence in the
last slot moves to its slot (`remove`). Keys and values take (L, slots, H, capacity, K) each; slots are added by
doubling. Entries beyond a slot's length have no effect and are overwritten later. Lengths are kept on the device for
the maths and on the host for shapes. `window` assigns slots to sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.generation.cpu.huge_pages import untouched_zeros
from common.model.transfer import to_device


class NextPositions(NamedTuple):
    """Where the next position of each of n slots is written, and which positions it attends to.

    positions (n,) is the position within each sequence. lines (n·H,) are the same positions as indices into a layer's
    cache viewed as (slots·H·capacity, K). mask (n, 1, 1, span) is 0 or −inf and is added to the attention scores.
    When all sequences have the same length, `lines` and `mask` are None.
    """

    positions: Tensor
    lines: Tensor | None
    mask: Tensor | None
    span: int


class SlotCache:
    """Key and value memory of all slots. `lengths[i]` is the number of positions that are filled in slot i."""

    def __init__(
        self,
        num_layers: int,
        num_heads: int,
        capacity: int,
        head_dim: int,
        *,
        slots: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (num_layers, slots, num_heads, capacity, head_dim)
        self.keys = untouched_zeros(shape, dtype, device)
        self.values = untouched_zeros(shape, dtype, device)
        self._first_slot: list[tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
        self.lengths: list[int] = []
        self.capacity = capacity
        self._positions = torch.arange(capacity, device=device)
        self._first_lines = self._lines_of_first_positions()
        self._device_lengths = torch.zeros(slots, device=device, dtype=torch.int64)

    @property
    def first_slot(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return views of the keys and values of slot 0 for each layer, which are created once.

        For each layer: keys and values as lines (H·capacity, K), then keys and values as heads (1, H, capacity, K).
        """
        if self._first_slot is None:
            layers = [(keys[:1], values[:1]) for keys, values in zip(self.keys, self.values, strict=True)]
            self._first_slot = [(keys.flatten(0, 2), values.flatten(0, 2), keys, values) for keys, values in layers]
        return self._first_slot

    @property
    def nbytes(self) -> int:
        """Return the memory of keys and values in bytes."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, slots: int) -> None:
        """Grow the memory to at least `slots` slots and keep their content."""
        existing = self.keys.shape[1]
        if slots <= existing:
            return
        more = max(slots, 2 * existing) - existing
        self.keys, self.values = self._grown(self.keys, more), self._grown(self.values, more)
        self._first_slot = None
        self._first_lines = self._lines_of_first_positions()
        self._device_lengths = torch.cat((self._device_lengths, self._device_lengths.new_zeros(more)))

    def write(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """Write positions 0..T−1 of slots first..first+n−1 of a layer: keys and values (n, H, T, K)."""
        n, _, T, _ = keys.shape
        self.keys[layer, first : first + n, :, :T] = keys
        self.values[layer, first : first + n, :, :T] = values

    def copy_slots(self, first: int, sources: list[int], length: int) -> None:
        """Copy the first `length` positions of the slots `sources` to slots first, first+1, …"""
        end = first + len(sources)
        at = to_device(torch.tensor(sources), self.keys.device)
        self.keys[:, first:end, :, :length] = self.keys[:, at, :, :length]
        self.values[:, first:end, :, :length] = self.values[:, at, :, :length]

    def set_lengths(self, first: int, lengths: list[int]) -> None:
        """Set the numbers of positions of slots first, first+1, …; a slot that was not in use is in use afterwards."""
        self.lengths[first : first + len(lengths)] = lengths
        self._device_lengths[first : first + len(lengths)] = to_device(
            torch.tensor(lengths), self._device_lengths.device
        )

    def max_next_position(self) -> int:
        """Return the next position of the longest sequence. Raises ValueError when its slot is full."""
        longest = max(self.lengths)
        if longest >= self.capacity:
            raise ValueError(
                f"a cache slot is full with {longest} positions; prefill it again with the last tokens of its sequence"
            )
        return longest

    def next_positions(self) -> NextPositions:
        """Return where the next position of each slot in use is written. Raises ValueError when a slot is full."""
        longest = self.max_next_position()
        n = len(self.lengths)
        span = longest + 1
        positions = self._device_lengths[:n]
        if min(self.lengths) == longest:
            return NextPositions(positions, None, None, span)
        hidden = self._positions[:span] > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.keys.dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
        lines = (self._first_lines[:n] + positions[:, None]).view(-1)
        return NextPositions(positions, lines, mask[:, None, None, :], span)

    def append(self, layer: int, target: NextPositions, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one position per slot, keys and values (n, H, K). Return all keys and values as (n, H, span, K)."""
        n, H, K = keys.shape
        layer_keys, layer_values = self.keys[layer], self.values[layer]
        if target.lines is None:
            layer_keys[:n, :, target.span - 1] = keys
            layer_values[:n, :, target.span - 1] = values
        else:
            layer_keys.view(-1, K).index_copy_(0, target.lines, keys.reshape(n * H, K).to(layer_keys.dtype))
            layer_values.view(-1, K).index_copy_(0, target.lines, values.reshape(n * H, K).to(layer_values.dtype))
        return layer_keys[:n, :, : target.span], layer_values[:n, :, : target.span]

    def advance(self) -> None:
        """Increase all lengths by 1, because `append` has written one position in every layer."""
        self._device_lengths[: len(self.lengths)] += 1
        self.lengths = [length + 1 for length in self.lengths]

    def remove(self, slot: int, *, clear: bool = False) -> None:
        """Free a slot and move the last sequence into it.

        `clear` sets the slot to 0 first. This is needed when the values of the slot are not finite: the mask gives them
        weight 0, but 0 times NaN is NaN.
        """
        last = len(self.lengths) - 1
        if clear:
            self.keys[:, slot] = 0.0
            self.values[:, slot] = 0.0
        if slot != last:
            T = self.lengths[last]
            self.keys[:, slot, :, :T] = self.keys[:, last, :, :T]
            self.values[:, slot, :, :T] = self.values[:, last, :, :T]
            self._device_lengths[slot] = self._device_lengths[last]
            self.lengths[slot] = self.lengths[last]
        self.lengths.pop()

    def _lines_of_first_positions(self) -> Tensor:
        """Return (slots, H): the index of position 0 of each slot and head in the view (slots·H·capacity, K)."""
        _, slots, heads, capacity, _ = self.keys.shape
        return (torch.arange(slots * heads, device=self.keys.device) * capacity).view(slots, heads)

    @staticmethod
    def _grown(tensor: Tensor, more: int) -> Tensor:
        slots = tensor.shape[1]
        grown = untouched_zeros((tensor.shape[0], slots + more, *tensor.shape[2:]), tensor.dtype, tensor.device)
        grown[:, :slots] = tensor
        return grown
