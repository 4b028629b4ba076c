"""Divides the token stream of one corpus into chunks of T + 1 tokens, and shuffles them for each pass over the corpus.

`FixedChunks` divides the stream once, as the original project does: only the order of the chunks changes between
passes. `DocumentChunks` shuffles the documents in each pass and divides the resulting stream anew. Both return the same
chunks for the same seed and number of the pass, so a training continues exactly from these two numbers and a position.
`common.data.loader` makes batches of them.

The order takes 4 bytes per document and 4 or 8 bytes per chunk. Tokens and starts of documents stay in memory-mapped
files.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.data.token_cache import Offsets, Tokens

BLOCK_DOCUMENTS = 32
"""Number of shuffled documents between two stored positions in the stream. The positions between them are computed when
they are needed, so that they take no memory."""
_PIECE_DOCUMENTS = 1 << 20
"""Number of documents whose lengths are read at a time when a pass begins."""

Ids = npt.NDArray[np.int64]


class Chunks(Protocol):
    """The chunks of one corpus."""

    num_chunks: int
    """Number of chunks in a pass."""

    def read(self, number: int, start: int, count: int) -> Tokens:
        """Return chunks `start` to `start + count` of pass `number`, shape (count, T + 1).

        A call with another number than the call before begins that pass, which takes about a second for 10 million
        documents.
        """
        ...


class FixedChunks:
    """Non-overlapping chunks of the stream. The remainder at its end is never used."""

    def __init__(self, tokens: Tokens, length: int, key: tuple[int, ...] | None) -> None:
        """`key` and the number of the pass seed the order; None means the order of the stream."""
        self.num_chunks = len(tokens) // (length + 1)
        self._rows = tokens[: self.num_chunks * (length + 1)].reshape(self.num_chunks, length + 1)
        self._key = key
        self._number = -1
        self._order: Ids = np.empty(0, np.int64)

    def read(self, number: int, start: int, count: int) -> Tokens:
        """Return chunks of pass `number`."""
        if self._key is None:
            return np.asarray(self._rows[start : start + count])
        if number != self._number:
            seed, *rest = self._key
            self._order = np.random.default_rng((seed, number, *rest)).permutation(self.num_chunks)
            self._number = number
        return np.asarray(self._rows[self._order[start : start + count]])


class DocumentChunks:
    """Chunks of a stream of shuffled documents.

    A pass begins at a random one of the first T + 1 tokens of this stream and continues at its beginning when it
    reaches the end, so that even a single document is divided differently in each pass. A pass contains every token at
    most once and leaves out at most T tokens. The chunks are shuffled, too; otherwise the chunks of a long document
    would be together in a batch.
    """

    def __init__(self, tokens: Tokens, documents: Offsets, length: int, key: tuple[int, ...]) -> None:
        """`documents` are the positions of the first tokens of the documents; `key` seeds the order."""
        self.num_chunks = len(tokens) // (length + 1)
        self._tokens, self._starts = np.asarray(tokens), np.asarray(documents)
        self._width = length + 1
        self._key = key
        self._number = -1
        self._documents = np.empty(0, np.uint32)
        self._chunks = np.empty(0, np.uint32)
        self._shift = 0
        self._blocks: Ids = np.empty(0, np.int64)
        """Position in the shuffled stream of every BLOCK_DOCUMENTS-th document."""

    def read(self, number: int, start: int, count: int) -> Tokens:
        """Return chunks of pass `number`."""
        if number != self._number:
            self._begin(number)
        positions = self._shift + self._chunks[start : start + count].astype(np.int64) * self._width
        return self._tokens[self._places(positions % len(self._tokens))].reshape(-1, self._width)

    def _begin(self, number: int) -> None:
        self._number = -1
        seed, *rest = self._key
        rng = np.random.default_rng((seed, number, *rest))
        self._shift = int(rng.integers(self._width))
        self._documents = _shuffled(rng, len(self._starts))
        self._chunks = _shuffled(rng, self.num_chunks)
        sums = []
        for first in range(0, len(self._documents), _PIECE_DOCUMENTS):
            lengths = self._lengths(self._documents[first : first + _PIECE_DOCUMENTS])
            sums.append(np.add.reduceat(lengths, np.arange(0, len(lengths), BLOCK_DOCUMENTS)))
        self._blocks = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.concatenate(sums))[:-1]))
        self._number = number

    def _places(self, positions: Ids) -> Ids:
        """Return the places in the unshuffled stream of the T + 1 tokens from each position on, shape (B · (T + 1),).

        All chunks of a batch advance together, one document at a time, so that there is no Python loop over chunks or
        documents.
        """
        current, skipped = self._documents_at(positions)
        left = np.full(len(positions), self._width, np.int64)
        firsts, counts = [], []
        while left.any():
            documents = self._documents[current]
            first = self._starts[documents] + skipped
            count = np.minimum(self._lengths(documents) - skipped, left)
            firsts.append(first)
            counts.append(count)
            left -= count
            current = (current + 1) % len(self._documents)
            skipped = np.zeros_like(skipped)
        first, count = np.stack(firsts, axis=1).ravel(), np.stack(counts, axis=1).ravel()
        before = np.cumsum(count) - count
        return np.repeat(first - before, count) + np.arange(len(positions) * self._width)

    def _documents_at(self, positions: Ids) -> tuple[Ids, Ids]:
        """Return, for each position in the shuffled stream, its document (counted in shuffled order) and its offset."""
        blocks = np.searchsorted(self._blocks, positions, side="right") - 1
        candidates = blocks[:, None] * BLOCK_DOCUMENTS + np.arange(BLOCK_DOCUMENTS)
        exists = candidates < len(self._documents)
        lengths = self._lengths(self._documents[np.where(exists, candidates, 0)]) * exists
        ends = np.cumsum(lengths, axis=1)
        offsets = positions - self._blocks[blocks]
        finished = ends <= offsets[:, None]
        return blocks * BLOCK_DOCUMENTS + finished.sum(axis=1), offsets - (lengths * finished).sum(axis=1)

    def _lengths(self, documents: npt.NDArray[np.uint32]) -> Ids:
        last = len(self._starts) - 1
        ends = np.where(documents == last, len(self._tokens), self._starts[np.minimum(documents + 1, last)])
        return ends - self._starts[documents]


def _shuffled(rng: np.random.Generator, count: int) -> npt.NDArray[np.uint32]:
    order = np.arange(count, dtype=np.uint32)
    rng.shuffle(order)
    return order
