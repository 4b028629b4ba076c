"""A dataset name is no path, file name or Hugging Face name, and a mistyped name gets a suggestion."""

from __future__ import annotations

import pytest

from common.datasets import check_name, is_dataset_name, nearest, source_problem, split_name, suggest_name
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
def test_a_suffix_determines_the_format(file: str, parts: tuple[str, str | None]) -> None:
    assert split_name(file) == parts


def test_the_nearest_name_is_found_whatever_its_capitals() -> None:
    known = ["Fairy-Tales", "news", "stories-2024"]
    assert nearest("fairy-tale", known) == "Fairy-Tales"
    assert nearest("stories", known) == "stories-2024"
    assert nearest("zzz", known) is None


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my stories.txt", "my-stories"),
        ("Märchen & Sagen (2).jsonl.gz", "Marchen-Sagen-2"),
        ("fine.parquet", "fine"),
        ("v1.2.txt", "v1.2"),
        ("..\\a/b.txt", "a-b"),
        ("x" * 300 + ".txt", "x" * 64),
        ("é" * 300, "e" * 64),
        ("\udcff\udcfe x\n.txt", "x"),
        ("a.txt.txt", None),
        ("童話.txt", None),
        ("🌊", None),
        (".txt", None),
        ("", None),
    ],
)
def test_a_file_name_has_a_nearest_name(file: str, name: str | None) -> None:
    assert suggest_name(file) == name
    assert name is None or is_dataset_name(name)


@pytest.mark.parametrize(
    "source",
    ["builtin:stories", "tales", "my tales.txt", "Märchen/eins.JSONL", "x.parquet.gz", "owner/name", "/a/b.txt",
     "é" * 125 + ".txt"],
)  # fmt: skip
def test_what_may_be_a_corpus_is_not_refused_by_its_name(source: str) -> None:
    assert source_problem(source) is None
