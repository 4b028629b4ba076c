"""What is checked while it streams by is what the reader of `common.data` finds in the finished file."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import END_OF_TEXT
from common.data.source import FileSource
from common.datasets import checks
from common.datasets.checks import JsonLinesCheck, ParquetCheck, TextCheck
from common.errors import DataError

ALPHABET = st.sampled_from(["a", "é", "語", "🌊", " ", "\n", "<|", "endoftext", "|>", END_OF_TEXT])


def run(check: TextCheck | JsonLinesCheck, data: bytes, step: int) -> int:
    for start in range(0, len(data), step):
        check.feed(data[start : start + step])
    return check.finish()


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(ALPHABET, max_size=30), step=st.integers(1, 40))
def test_text_has_as_many_documents_as_the_reader_finds(
    pieces: list[str], step: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "".join(pieces)
    path = tmp_path_factory.getbasetemp() / "some.txt"
    path.write_text(text, encoding="utf-8")
    there = len(list(FileSource(path, "text").documents()))
    if there == 0:
        with pytest.raises(DataError, match="no text"):
            run(TextCheck(), text.encode(), step)
    else:
        assert run(TextCheck(), text.encode(), step) == there


def test_the_separator_is_that_of_the_tokeniser() -> None:
    assert checks.END_OF_TEXT == END_OF_TEXT


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("data", "byte"),
    [(b"good \xff bad", 6), (b"abc\xe9\xaa", 4), ("übel".encode("latin-1"), 1), (b"x" * 50 + b"\x80", 51)],
)
def test_bytes_that_are_no_utf_8_are_counted_from_one(data: bytes, byte: int, step: int) -> None:
    with pytest.raises(DataError, match=rf"not UTF-8 text: byte {byte} "):
        run(TextCheck(), data, step)


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_json_lines_are_counted_and_blank_ones_are_not(step: int) -> None:
    data = (
        b"\xef\xbb\xbf"
        + lines({"text": "one"}, {"text": "  "}, {"text": "two", "more": [1]})
        + b'\r\n{"text":"\xc3\xa9"}'
    )
    assert run(JsonLinesCheck("text"), data, step) == 3


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lines({"text": "a"}) + b"{oops}\n", "line 2 is no JSON"),
        (lines({"text": "a"}, {"body": "b"}), "line 2 has no field 'text'"),
        (lines({"text": "a"}, ["b"]), "line 2 has no field 'text'"),
        (lines({"text": "a"}, 3), "line 2 has no field 'text'"),
        (b"\n\n" + lines({"text": None}), "line 3: 'text' is NoneType"),
        (b'{"text": "\xff"}\n', "line 1 is not UTF-8"),
        (b'{"text": "\\ud800"}\n', "line 1: 'text' holds half a surrogate pair"),
        (lines({"text": " "}), "no text"),
        (b"[" * 100_000, "line 1 is"),
    ],
)
def test_a_bad_line_is_named_with_its_number(data: bytes, says: str, step: int) -> None:
    with pytest.raises(DataError, match=says):
        run(JsonLinesCheck("text"), data, max(step, len(data) // 100))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_LINE_BYTES", 1000)
    check = JsonLinesCheck("text")
    with pytest.raises(DataError, match="line 1 is longer than"):
        for _ in range(11):
            check.feed(b"x" * 100)


def parquet(path: Path, **columns: list[object]) -> ParquetCheck:
    pq.write_table(pa.table(columns), path)
    return ParquetCheck(path, "text")


def test_parquet_is_counted(tmp_path: Path) -> None:
    assert parquet(tmp_path / "a.parquet", text=["one", None, " ", "two"], n=[1, 2, 3, 4]).finish() == 2


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'text' \(it has story, n\)"):
        parquet(tmp_path / "a.parquet", story=["one"], n=[1]).finish()


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'text' is int64, expected text"):
        parquet(tmp_path / "a.parquet", text=[1]).finish()


@pytest.mark.parametrize("data", [b"PAR1 and then nothing", b"no parquet", b""])
def test_what_is_no_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"not a (readable )?parquet file"):
        ParquetCheck(tmp_path / "a.parquet", "text").finish()
