"""Each epoch reads the documents in a new order and divides them anew; several corpora are mixed by their weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import BatchLoader, ChunkLoader, Corpus, CorpusLoader, CorpusPart
from common.data.chunks import DocumentChunks
from common.data.joined_tokens import JoinedTokens
from common.data.token_cache import Split
from common.errors import DataError

Tokens = npt.NDArray[np.uint16]


def split(lengths: list[int], first: int = 0) -> Split:
    """Return documents of these lengths whose tokens are consecutive numbers, beginning with `first`."""
    starts = np.cumsum([0, *lengths])[:-1].astype(np.int64)
    return Split(np.arange(first, first + sum(lengths), dtype=np.uint16), starts, sum(lengths))


def corpus(*lengths: list[int], shares: tuple[float, ...] = (1.0,)) -> Corpus:
    """Return corpora whose tokens begin with 0, 10,000, 20,000 and so on."""
    parts = [
        CorpusPart(f"part-{number}", share, split(given, 10_000 * number), split([5]), Path())
        for number, (given, share) in enumerate(zip(lengths, shares, strict=True))
    ]
    return Corpus(tuple(parts), "toys", "digest")


def epoch_rows(loader: BatchLoader) -> list[list[int]]:
    """Return the chunks of one epoch, with their last target."""
    rows: list[list[int]] = []
    while len(rows) < loader.num_chunks:
        inputs, targets = loader.next_batch()
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        rows += torch.cat((inputs, targets[:, -1:]), dim=1).tolist()
    return rows


def stream_by_hand(part: Split, chunks: DocumentChunks) -> list[int]:
    """Return the shuffled stream of the current pass, made from the documents one by one."""
    ends = [*part.documents[1:].tolist(), len(part.tokens)]
    documents = [part.tokens[a:b].tolist() for a, b in zip(part.documents.tolist(), ends, strict=True)]
    joined = [token for number in chunks._documents for token in documents[number]]
    return joined[chunks._shift :] + joined[: chunks._shift]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120),
    width=st.integers(2, 30),
    seed=st.integers(0, 3),
    number=st.integers(0, 2),
)
def test_a_pass_is_the_shuffled_documents_divided_into_chunks(
    lengths: list[int], width: int, seed: int, number: int
) -> None:
    part = split(lengths)
    if len(part.tokens) < width:
        return
    chunks = DocumentChunks(part.tokens, part.documents, width - 1, (seed, 0, 1))
    rows = chunks.read(number, 0, chunks.num_chunks)
    stream = stream_by_hand(part, chunks)
    expected = [stream[start : start + width] for start in range(0, len(stream) - width + 1, width)]
    assert rows.shape == (len(part.tokens) // width, width)
    assert sorted(rows.tolist()) == sorted(expected)
    assert len(set(rows.ravel().tolist())) == rows.size, "no token is read twice in a pass"


def test_every_epoch_has_another_order_of_documents_and_other_chunks() -> None:
    loader = CorpusLoader(corpus([7, 13, 5, 21, 9, 30, 2, 14] * 5), context_length=9, batch_size=4, seed=1)
    epochs = [epoch_rows(loader) for _ in range(3)]
    assert all(len(rows) == 505 // 10 for rows in epochs)
    chunks = [{tuple(row) for row in rows} for rows in epochs]
    assert len(chunks[0] & chunks[1]) < 10, "the documents are divided anew"
    assert all(len({token for row in rows for token in row}) == 500 for rows in epochs)
    again = CorpusLoader(corpus([7, 13, 5, 21, 9, 30, 2, 14] * 5), context_length=9, batch_size=10, seed=1)
    assert [epoch_rows(again) for _ in range(3)] == epochs, "the order does not depend on the batch size"


def test_a_single_document_is_divided_differently_in_each_epoch() -> None:
    loader = CorpusLoader(corpus([1000]), context_length=99, batch_size=2)
    starts = [frozenset(row[0] % 100 for row in epoch_rows(loader)) for _ in range(6)]
    assert len(set(starts)) > 1


def test_the_order_chunks_is_that_of_older_versions_and_their_checkpoints_continue_in_it() -> None:
    text = corpus([11, 19, 8] * 10)
    old = ChunkLoader(np.asarray(text.train[0:380]), context_length=9, batch_size=4, seed=5)
    chunks = CorpusLoader(text, context_length=9, batch_size=4, seed=5, order="chunks")
    rows = np.asarray(text.train[0:380]).reshape(38, 10)
    expected = [rows[np.random.default_rng((5, epoch)).permutation(38)].tolist() for epoch in range(2)]
    assert [epoch_rows(old) for _ in range(2)] == expected
    assert [epoch_rows(chunks) for _ in range(2)] == expected
    old.next_batch()
    state = {key: old.state_dict()[key] for key in ("epoch", "position", "seed", "num_chunks", "length")}
    resumed = CorpusLoader(text, context_length=9, batch_size=3, seed=5)
    resumed.load_state_dict(state)
    rest = [old.next_batch()[0].tolist() for _ in range(9)]
    assert [row for batch in rest for row in batch] == [
        row for _ in range(12) for row in resumed.next_batch()[0].tolist()
    ][:34]


def test_a_refused_state_leaves_the_order_as_it_was() -> None:
    text = corpus([11, 19, 8] * 10)
    loader, untouched = (CorpusLoader(text, context_length=9, batch_size=4, seed=5) for _ in range(2))
    old = CorpusLoader(text, context_length=9, batch_size=4, seed=6, order="chunks")
    with pytest.raises(DataError, match="seed 6 became 5"):
        loader.load_state_dict(old.state_dict())
    assert loader.state_dict() == untouched.state_dict()
    assert epoch_rows(loader) == epoch_rows(untouched)


@settings(max_examples=25, deadline=None)
@given(taken=st.integers(0, 60), batches=st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_a_mixture_resumes_at_the_next_chunk_with_another_batch_size(taken: int, batches: tuple[int, int]) -> None:
    text = corpus([20] * 12, [15] * 6, [50], shares=(0.5, 0.3, 0.2))
    first, second = (CorpusLoader(text, context_length=9, batch_size=size, seed=3) for size in batches)
    for _ in range(taken):
        first.next_batch()
        first.prefetch()
    second.load_state_dict(first.state_dict())

    def following(loader: CorpusLoader) -> list[list[int]]:
        rows: list[list[int]] = []
        while len(rows) < 90:
            rows += loader.next_batch()[0].tolist()
        return rows[:90]

    assert following(first) == following(second)


def test_the_weights_are_the_shares_of_the_sequences_in_every_epoch() -> None:
    text = corpus([10] * 80, [10] * 15, [10] * 5, shares=(0.2, 0.7, 0.1))
    loader = CorpusLoader(text, context_length=9, batch_size=7, seed=2)
    counts: Counter[tuple[int, int]] = Counter()
    for _ in range(4):
        rows = epoch_rows(loader)
        assert Counter(row[0] // 10_000 for row in rows) == {0: 20, 1: 70, 2: 10}
        for row in rows:
            counts.update((row[0] // 10_000, token) for token in row)
    # Four epochs are exactly one pass over part 0, 280 / 15 passes over part 1 and 8 passes over part 2. Each pass
    # leaves out at most 9 tokens of a part.
    part_0 = [count for (part, _), count in counts.items() if part == 0]
    assert len(part_0) == 800 and set(part_0) == {1}
    assert all(18 <= count <= 19 for (part, _), count in counts.items() if part == 1)
    assert all(count == 8 for (part, _), count in counts.items() if part == 2)


def test_neighbours_in_a_batch_come_from_different_documents() -> None:
    loader = CorpusLoader(corpus([2000] * 5), context_length=9, batch_size=200)
    first = loader.next_batch()[0][:, 0]
    assert int((first[1:] - first[:-1] == 10).sum()) < 10


def test_a_corpus_that_is_too_short_for_a_mixture_is_named() -> None:
    with pytest.raises(DataError, match=r"part-1 has only 20 tokens for training.* sequence of 31"):
        CorpusLoader(corpus([100], [20], shares=(0.5, 0.5)), context_length=30, batch_size=1)


def test_other_weights_cannot_resume_a_position() -> None:
    before = CorpusLoader(corpus([100], [100], shares=(0.5, 0.5)), context_length=9, batch_size=1)
    after = CorpusLoader(corpus([100], [100], shares=(0.75, 0.25)), context_length=9, batch_size=1)
    with pytest.raises(DataError, match=r"quotas \[10, 10\] became \[15, 5\]"):
        after.load_state_dict(before.state_dict())


def test_joined_tokens_are_the_concatenation() -> None:
    streams = [np.arange(5, dtype=np.uint16), np.arange(10, 13, dtype=np.uint16), np.arange(20, 24, dtype=np.uint16)]
    joined, whole = JoinedTokens(streams), np.concatenate(streams)
    assert len(joined) == 12
    for start in range(13):
        for stop in range(start, 14):
            assert joined[start:stop].tolist() == whole[start:stop].tolist()
