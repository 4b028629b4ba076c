"""Api processes that were killed are told from those whose mark was lost."""

from __future__ import annotations

from services.generator.readers import LOOK_SECONDS, Readers

IDS = ["one.1", "two.1", "one.2", "nobody"]


def looks(readers: Readers, *marks: tuple[object, object]) -> list[set[str]]:
    """What each look at the marks of `one` and `two` finds, the looks as far apart as they are."""
    found = []
    for number, its in enumerate(marks, 1):
        now = number * LOOK_SECONDS
        assert readers.due(IDS, now) == ["one", "two"]
        found.append(readers.gone(["one", "two"], its, now))
        assert readers.due(IDS, now + LOOK_SECONDS / 2) == []
    return found


def test_one_whose_mark_was_missing_twice_is_gone() -> None:
    assert looks(Readers(), ("1", "1"), (None, "1"), (None, "1")) == [set(), set(), {"one"}]


def test_one_whose_mark_comes_back_or_was_never_there_is_not() -> None:
    seen = looks(Readers(), ("1", None), (None, None), ("1", None), (None, None), ("1", None))
    assert seen == [set()] * 5
