"""Stream ids and the ring buffer: which entries a client with a given cursor receives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.streaming import topic as stream_topic
from services.api.streaming.entries import StreamEntry, StreamPosition, format_id, parse_id
from services.api.streaming.topic import Topic

WORD = st.integers(0, 2**64 - 1)


def entry(number: int, size: int = 0) -> StreamEntry:
    return StreamEntry((number, 0), bytes(size), b"")


@given(WORD, WORD)
def test_an_id_survives_a_round_trip_through_text(first: int, second: int) -> None:
    assert parse_id(format_id((first, second))) == (first, second)


def test_the_part_after_the_dash_may_be_missing() -> None:
    assert parse_id("0") == (0, 0)
    assert parse_id(" 17 ") == (17, 0)


@pytest.mark.parametrize("text", ["", "-", "a", "1-b", "-1", "1.5", "$", "١-0", f"{2**64}-0", "1-" + "9" * 21])
def test_any_other_text_is_not_an_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a stream id"):
        parse_id(text)


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(0, 250), st.integers(1, 20))
def test_the_ring_returns_all_entries_after_a_cursor_or_none(steps: list[int], cursor: int, size: int) -> None:
    published = [sum(steps[: n + 1]) for n in range(len(steps))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_topic, "RING", size)
        topic = Topic("key")
        topic.restart(StreamPosition((0, 0), "1-a"))
        for number in published:
            topic.publish([entry(number)])
    found = topic.entries_after((cursor, 0))
    dropped = published[: max(0, len(published) - size)]
    if dropped and cursor < dropped[-1]:
        assert found is None
    else:
        assert found is not None
        assert [item.id[0] for item in found] == [number for number in published if number > cursor]


def test_the_ring_returns_nothing_before_the_reader_has_a_position() -> None:
    assert Topic("key").entries_after((5, 0)) is None


def test_a_publication_wakes_waiting_clients() -> None:
    topic = Topic("key")
    published = topic.next_publication()
    topic.publish([entry(1)])
    assert published.is_set() and not topic.next_publication().is_set()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 100), st.integers(1, 100))
def test_ring_and_batches_are_bounded_in_bytes_and_lose_nothing(sizes: list[int], ring: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_topic, "RING_BYTES", ring)
        patch.setattr(stream_topic, "BATCH_BYTES", batch)
        topic = Topic("key")
        topic.restart(StreamPosition((0, 0), "1-a"))
        for number, size in enumerate(sizes, start=1):
            topic.publish([entry(number, size)])
        kept = list(topic.ring)
        assert sum(len(item.encoded) for item in kept) <= ring or len(kept) == 1
        assert kept[-1].id == (len(sizes), 0)
        cursor = topic.base
        assert cursor == (len(sizes) - len(kept), 0)
        seen: list[StreamEntry] = []
        while found := topic.entries_after(cursor):
            assert sum(len(item.encoded) for item in found) <= batch or len(found) == 1
            seen += found
            cursor = found[-1].id
    assert seen == kept
