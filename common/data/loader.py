"""Token stream to batches: non-overlapping chunks of context + 1 tokens, shuffled anew each epoch.

The order depends on (seed, epoch) alone and the position is counted in chunks, so training resumes at the very next
chunk, also with another batch size. A stream shorter than one chunk gives one shorter chunk; the remainder at the end
is dropped, as in the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.data.token_cache import Tokens
from common.errors import DataError

Batch = tuple[Tensor, Tensor]
"""input_ids and targets, both (B, T) int64; targets are the inputs shifted by one."""


class ChunkLoader:
    """Endless batches over one token stream. `epoch` and `position` (chunks taken in it) are the whole state."""

    def __init__(
        self, tokens: Tokens, *, context_length: int, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        if len(tokens) < 2:
            raise DataError(f"{len(tokens)} tokens make no chunk; at least 2 are needed. Use a larger corpus")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.length = min(context_length, len(tokens) - 1)
        """T of every batch: the context length, or less where the stream is shorter."""
        self.num_chunks = len(tokens) // (self.length + 1)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0
        self._chunks = tokens[: self.num_chunks * (self.length + 1)].reshape(self.num_chunks, self.length + 1)
        self._order = self._epoch_order()

    def next_batch(self) -> Batch:
        """The next micro-batch; the last of an epoch may be smaller, after it a new epoch begins."""
        if self.position >= self.num_chunks:
            self.epoch += 1
            self.position = 0
            self._order = self._epoch_order()
        chosen = self._order[self.position : self.position + self.batch_size]
        self.position += len(chosen)
        return self._batch(chosen)

    def batches(self) -> Iterator[Batch]:
        """One pass over all chunks in their order in the stream; the state does not move. For validation."""
        for start in range(0, self.num_chunks, self.batch_size):
            yield self._batch(np.arange(start, min(start + self.batch_size, self.num_chunks)))

    def state_dict(self) -> dict[str, Any]:
        """What resumes the order exactly; plain numbers."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "num_chunks": self.num_chunks,
            "length": self.length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. DataError when it belongs to other data, context length or seed."""
        here = self.state_dict()
        differing = [key for key in ("seed", "num_chunks", "length") if state.get(key) != here[key]]
        if differing:
            findings = ", ".join(f"{key} {state.get(key)} became {here[key]}" for key in differing)
            raise DataError(f"the data position cannot be resumed: {findings}; keep corpus, context length and seed")
        self.epoch = int(state["epoch"])
        self.position = int(state["position"])
        self._order = self._epoch_order()

    def _epoch_order(self) -> npt.NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.num_chunks)
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.num_chunks)

    def _batch(self, chosen: npt.NDArray[np.int64]) -> Batch:
        chunks = torch.from_numpy(self._chunks[chosen].astype(np.int64))
        return chunks[:, :-1].contiguous(), chunks[:, 1:].contiguous()
