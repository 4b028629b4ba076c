"""Makes batches of chunks of context + 1 tokens, for one corpus or several with weights.

`ChunkLoader` divides one token stream once, as the original project does. `CorpusLoader` reads all corpora of a
training. The order depends only on (seed, epoch), and the position is counted in chunks. So training resumes at exactly
the next chunk, even with another batch size. A stream shorter than one chunk gives one shorter chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.data.chunks import Chunks, DocumentChunks, FixedChunks
from common.data.corpus import Corpus
from common.data.token_cache import Tokens
from common.errors import DataError

Batch = tuple[Tensor, Tensor]
"""input_ids and targets, both (B, T) int64; targets are the inputs shifted by one."""
Order = Literal["documents", "chunks"]
"""What is shuffled in each epoch; `training.shuffle` describes it."""

_DOCUMENTS, _MIXTURE = 1, 2
"""Last elements of seeds, so that the orders of documents and of corpora are independent of each other."""


class BatchLoader:
    """Produces an endless sequence of batches.

    An epoch contains `num_chunks` chunks, of which `quotas[i]` come from `parts[i]`, in random order. Each part is read
    in passes of its own: a pass ends when all its chunks have been read, whatever the epoch. `epoch` and `position`,
    the number of chunks already used in the epoch, are the entire state.
    """

    def __init__(
        self, parts: Sequence[Chunks], quotas: Sequence[int], *, length: int, batch_size: int, seed: int, order: Order
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self.length = length
        """T of every batch: the context length, or less if the stream is shorter."""
        self.quotas = list(quotas)
        self.num_chunks = sum(quotas)
        self.batch_size = batch_size
        self.seed = seed
        self.order: Order = order
        self.epoch = 0
        self.position = 0
        self._parts = list(parts)
        self._mixture: tuple[int, npt.NDArray[np.uint8]] | None = None
        """An epoch, and the number of the part from which each of its chunks comes."""
        self._used = (0, np.zeros(len(parts), np.int64))
        """A position in the epoch, and how many chunks before it come from each part."""
        self._prefetched: Batch | None = None

    def next_batch(self) -> Batch:
        """Return the next micro-batch. The last one of an epoch may be smaller; after it a new epoch begins."""
        if self.position >= self.num_chunks:
            self.epoch += 1
            self.position = 0
        batch = self._prefetched or self._read()
        self._prefetched = None
        self.position += len(batch[0])
        return batch

    def prefetch(self) -> None:
        """Read the next micro-batch of the epoch in advance, for `next_batch`. The position does not change."""
        if self._prefetched is None and self.position < self.num_chunks:
            self._prefetched = self._read()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the order continues exactly, as plain numbers and texts."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "num_chunks": self.num_chunks,
            "length": self.length,
            "order": self.order,
            "quotas": self.quotas,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state_dict`. Raises DataError if its data, context length or seed differ.

        A state of an older version has no order and no quotas. It is of one corpus, with the order `chunks`.
        """
        current = self.state_dict()
        before = {"order": "chunks", "quotas": current["quotas"] if len(self._parts) == 1 else None, **state}
        differing = [key for key in current if key not in ("epoch", "position") and before.get(key) != current[key]]
        if differing:
            findings = ", ".join(f"{key} {before.get(key)} became {current[key]}" for key in differing)
            raise DataError(f"the data position cannot be resumed: {findings}; keep corpus, context length and seed")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._prefetched = None

    def _read(self) -> Batch:
        count = min(self.batch_size, self.num_chunks - self.position)
        return _batch(self._rows(count))

    def _rows(self, count: int) -> Tokens:
        """Return the next `count` chunks, shape (count, T + 1)."""
        if len(self._parts) == 1:
            return self._part_rows(0, self.position, count)
        labels, used = self._labels(), self._used_before(self.position)
        wanted = labels[self.position : self.position + count]
        rows = np.empty((count, self.length + 1), np.uint16)
        for number, before in enumerate(used.tolist()):
            chosen = wanted == number
            rows[chosen] = self._part_rows(number, before, int(chosen.sum()))
        return rows

    def _part_rows(self, number: int, used: int, count: int) -> Tokens:
        """Return the next `count` chunks of a part, from which this epoch has already read `used` chunks."""
        part, rows = self._parts[number], []
        start, end = self.epoch * self.quotas[number] + used, self.epoch * self.quotas[number] + used + count
        while start < end:
            passed, first = divmod(start, part.num_chunks)
            rows.append(part.read(passed, first, min(end - start, part.num_chunks - first)))
            start += len(rows[-1])
        if len(rows) == 1:
            return rows[0]
        return np.concatenate(rows) if rows else np.empty((0, self.length + 1), np.uint16)

    def _labels(self) -> npt.NDArray[np.uint8]:
        if self._mixture is None or self._mixture[0] != self.epoch:
            labels = np.repeat(np.arange(len(self._parts), dtype=np.uint8), self.quotas)
            np.random.default_rng((self.seed, self.epoch, 0, _MIXTURE)).shuffle(labels)
            self._mixture = self.epoch, labels
            self._used = 0, np.zeros(len(self._parts), np.int64)
        return self._mixture[1]

    def _used_before(self, position: int) -> npt.NDArray[np.int64]:
        known, used = self._used
        if known > position:
            known, used = 0, np.zeros_like(used)
        used = used + np.bincount(self._labels()[known:position], minlength=len(used))
        self._used = position, used
        return used


class ChunkLoader(BatchLoader):
    """The chunks of one token stream, which is divided once. With `shuffle`, each epoch has another order."""

    def __init__(
        self, tokens: Tokens, *, context_length: int, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        length = chunk_length(len(tokens), context_length)
        self._in_order = FixedChunks(tokens, length, None)
        chunks = FixedChunks(tokens, length, (seed,)) if shuffle else self._in_order
        super().__init__([chunks], [chunks.num_chunks], length=length, batch_size=batch_size, seed=seed, order="chunks")

    def batches(self) -> Iterator[Batch]:
        """Iterate once over all chunks in stream order, for validation. The position does not change."""
        for start in range(0, self.num_chunks, self.batch_size):
            yield _batch(self._in_order.read(0, start, min(self.batch_size, self.num_chunks - start)))


class CorpusLoader(BatchLoader):
    """The chunks of all corpora of a training.

    An epoch has as many chunks as all corpora together. Each corpus contributes its share of them, rounded to whole
    chunks, but at least one.
    """

    def __init__(
        self, corpus: Corpus, *, context_length: int, batch_size: int, seed: int = 0, order: Order = "documents"
    ) -> None:
        """Raises DataError if a corpus has too few tokens."""
        self._corpus = corpus
        parts = corpus.parts
        length = chunk_length(len(parts[0].train.tokens), context_length)
        for part in parts if len(parts) > 1 else ():
            if len(part.train.tokens) <= context_length:
                raise DataError(
                    f"{part.name} has only {len(part.train.tokens)} tokens for training, which is less than a sequence "
                    f"of {context_length + 1}; use a larger corpus or a smaller model.context_length"
                )
            length = context_length
        sizes = [len(part.train.tokens) // (length + 1) for part in parts]
        quotas = _quotas([part.share for part in parts], sum(sizes))
        super().__init__([], quotas, length=length, batch_size=batch_size, seed=seed, order=order)
        self._used = (0, np.zeros(len(parts), np.int64))
        self._parts = self._chunks()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a result of `state_dict`, in its order. Raises DataError as for any loader."""
        order, before = state.get("order", "chunks"), self.order
        if order in ("documents", "chunks"):
            self.order = order
        try:
            super().load_state_dict(state)
        except BaseException:
            self.order = before
            raise
        if self.order != before:
            self._parts = self._chunks()

    def _chunks(self) -> list[Chunks]:
        chunks: list[Chunks] = []
        for number, part in enumerate(self._corpus.parts):
            if self.order == "documents":
                key = (self.seed, number, _DOCUMENTS)
                chunks.append(DocumentChunks(part.train.tokens, part.train.documents, self.length, key))
            else:
                # numpy pads a seed with zeros, so this is the order of ChunkLoader if there is one corpus.
                chunks.append(FixedChunks(part.train.tokens, self.length, (self.seed, number)))
        return chunks


def chunk_length(tokens: int, context_length: int) -> int:
    """Return T for a stream of `tokens` tokens. Raises DataError if it has fewer than 2."""
    if tokens < 2:
        raise DataError(
            f"the corpus has only {tokens} tokens, but at least 2 are needed for a chunk; use a larger corpus"
        )
    return min(context_length, tokens - 1)


def _quotas(shares: Sequence[float], chunks: int) -> list[int]:
    """Divide `chunks` by `shares` with the method of the largest remainder; each quota is at least 1."""
    exact = [share * chunks for share in shares]
    quotas = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: quotas[number] - exact[number])
    for number in by_remainder[: chunks - sum(quotas)]:
        quotas[number] += 1
    return [max(1, quota) for quota in quotas]


def _batch(rows: Tokens) -> Batch:
    chunks = torch.from_numpy(rows.astype(np.int64))
    return chunks[:, :-1].contiguous(), chunks[:, 1:].contiguous()
