"""Splits a token stream into batches of non-overlapping chunks of context + 1 tokens, shuffled in each epoch.

The order depends only on (seed, epoch), and the position is counted in chunks. So training resumes at exactly the next
chunk, even with another batch size. A stream shorter than one chunk gives one shorter chunk. The remainder at the end
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
    """Produces an endless sequence of batches from one token stream.

    `epoch` and `position`, the number of chunks already used in the epoch, are its entire state.
    """

    def __init__(
        self, tokens: Tokens, *, context_length: int, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        if len(tokens) < 2:
            raise DataError(
                f"the corpus has only {len(tokens)} tokens, but at least 2 are needed for a chunk; use a larger corpus"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.length = min(context_length, len(tokens) - 1)
        """T of every batch: the context length, or less if the stream is shorter."""
        self.num_chunks = len(tokens) // (self.length + 1)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0
        self._chunks = tokens[: self.num_chunks * (self.length + 1)].reshape(self.num_chunks, self.length + 1)
        self._order = self._epoch_order()
        self._prefetched: Batch | None = None

    def next_batch(self) -> Batch:
        """Return the next micro-batch. The last one of an epoch may be smaller; after it a new epoch begins."""
        if self.position >= self.num_chunks:
            self.epoch += 1
            self.position = 0
            self._order = self._epoch_order()
        batch = self._prefetched or self._read()
        self._prefetched = None
        self.position += len(batch[0])
        return batch

    def prefetch(self) -> None:
        """Read the next micro-batch of the epoch in advance, for `next_batch`. The position does not change."""
        if self._prefetched is None and self.position < self.num_chunks:
            self._prefetched = self._read()

    def batches(self) -> Iterator[Batch]:
        """Iterate once over all chunks in stream order, for validation. The position does not change."""
        for start in range(0, self.num_chunks, self.batch_size):
            yield self._batch(np.arange(start, min(start + self.batch_size, self.num_chunks)))

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the order continues exactly, as plain numbers."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "num_chunks": self.num_chunks,
            "length": self.length,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state_dict`. Raises DataError if its data, context length or seed differ."""
        current = self.state_dict()
        differing = [key for key in ("seed", "num_chunks", "length") if state.get(key) != current[key]]
        if differing:
            findings = ", ".join(f"{key} {state.get(key)} became {current[key]}" for key in differing)
            raise DataError(f"the data position cannot be resumed: {findings}; keep corpus, context length and seed")
        self.epoch = int(state["epoch"])
        self.position = int(state["position"])
        self._order = self._epoch_order()
        self._prefetched = None

    def _read(self) -> Batch:
        return self._batch(self._order[self.position : self.position + self.batch_size])

    def _epoch_order(self) -> npt.NDArray[np.int64]:
        if not self.shuffle:
            return np.arange(self.num_chunks)
        return np.random.default_rng((self.seed, self.epoch)).permutation(self.num_chunks)

    def _batch(self, chosen: npt.NDArray[np.int64]) -> Batch:
        chunks = torch.from_numpy(self._chunks[chosen].astype(np.int64))
        return chunks[:, :-1].contiguous(), chunks[:, 1:].contiguous()
