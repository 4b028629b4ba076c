"""A dataset's name is a word: no path, no file, no name of the hub, and a typing error finds its neighbour."""

from __future__ import annotations

import pytest

from common.datasets import check_name, is_dataset_name, nearest, split_name
from common.errors import InvalidInputError


@pytest.mark.parametrize("name", ["stories", "S1", "my-stories_2.0", "a", "a" * 64, "text.csv", "a..b"])
def test_words_are_names(name: str) -> None:
    assert is_dataset_name(name) and check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "a\\b",
        "../a",
        "/etc/passwd",
        "a b",
        "a\n",
        "ä",
        "a\0",
        "a" * 65,
        "a.txt",
        "a.JSONL",
        "a.parquet",
        "a.gz",
        "builtin:stories",
        "owner/name",
        "~root",
        "%2e%2e",
    ],
)
def test_everything_else_is_none(name: str) -> None:
    assert not is_dataset_name(name)
    with pytest.raises(InvalidInputError, match="cannot be a dataset's name") as caught:
        check_name(name)
    assert caught.value.errors[0]["location"] == "query.name"


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("stories.txt", ("stories", "txt")),
        ("stories.JSONL", ("stories", "jsonl")),
        ("stories.jsonl.gz", ("stories", "jsonl")),
        ("v1.2.parquet", ("v1.2", "parquet")),
        ("stories", ("stories", None)),
        ("stories.csv", ("stories.csv", None)),
        ("stories.gz", ("stories", None)),
    ],
)
def test_a_suffix_tells_the_format(file: str, parts: tuple[str, str | None]) -> None:
    assert split_name(file) == parts


def test_the_nearest_name_is_found_whatever_its_capitals() -> None:
    known = ["Fairy-Tales", "news", "stories-2024"]
    assert nearest("fairy-tale", known) == "Fairy-Tales"
    assert nearest("stories", known) == "stories-2024"
    assert nearest("zzz", known) is None
