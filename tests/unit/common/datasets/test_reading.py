"""Any text cut anywhere gives the documents that a plain split gives; what is too long stays within bounds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import load_tokenizer
from common.datasets.reading import END_OF_TEXT, Reader, documents, json_lines, read_file, reader_of
from common.datasets.reading.unpacking import UNPACK_BYTES, Unpacker
from common.errors import DataError

ALPHABET = st.sampled_from(["a", "é", "語", "🌊", " ", "\n", "\u200b", "<|", "endoftext", "|>", END_OF_TEXT])


def run(reader: Reader, data: bytes, step: int) -> list[str]:
    blocks = (data[start : start + step] for start in range(0, len(data), step))
    return [text for block in blocks for text in reader.feed(block)] + list(reader.finish())


def text_reader() -> Reader:
    return reader_of("txt", "text", "some.txt", Path("unused"))


def line_reader() -> Reader:
    return reader_of("jsonl", "text", "some.jsonl", Path("unused"))


def visible(documents: list[str]) -> list[str]:
    return [text.strip() for text in documents if text.replace("\u200b", " ").strip()]


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(ALPHABET, max_size=30), step=st.integers(1, 40))
def test_text_is_split_at_the_separators_whatever_the_blocks(parts: list[str], step: int) -> None:
    text = "".join(parts)
    expected = visible(text.split(END_OF_TEXT))
    if expected:
        assert run(text_reader(), text.encode(), step) == expected
    else:
        with pytest.raises(DataError, match="no text" if text else "is empty"):
            run(text_reader(), text.encode(), step)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8), step=st.integers(1, 40)
)
def test_lines_are_those_that_were_written(texts: list[str], step: int) -> None:
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in [*texts, "end"]).encode()
    found = run(line_reader(), data, step)
    assert found == [piece for text in [*texts, "end"] for piece in documents.pieces(text)]
    assert found[-1] == "end"


def test_the_separator_is_the_token_of_the_tokeniser() -> None:
    assert load_tokenizer().encode(END_OF_TEXT, allowed_special="all") == [load_tokenizer().eot_token]


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("data", "byte"),
    [(b"good \xff bad", 6), (b"abc\xe9\xaa", 4), ("übel".encode("latin-1"), 1), (b"x" * 50 + b"\x80\0", 51)],
)
def test_bytes_that_are_no_utf_8_are_counted_from_one(data: bytes, byte: int, step: int) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        with pytest.raises(DataError, match=rf"^some\.txt: not UTF-8 text: byte {byte + len(mark)} "):
            run(text_reader(), mark + data, step)


def test_nothing_beyond_what_is_taken_is_read(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text('{"text": "a"}\n{oops\n')
    found = read_file(tmp_path / "some.jsonl", "text", where="some.jsonl")
    assert next(found) == "a"
    with pytest.raises(DataError, match=r"some\.jsonl: line 2"):
        next(found)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_LINE_BYTES", 1000)
    reader = line_reader()
    with pytest.raises(DataError, match="line 1 is longer than"):
        for _ in range(11):
            list(reader.feed(b"x" * 100))
    with pytest.raises(DataError, match="line 2 is longer than"):
        run(line_reader(), b'{"text": "a"}\n{"text": "' + b"x" * 1000 + b'"}\n', 5000)


@pytest.mark.parametrize("step", [1, 64, 5000])
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_document_too_long_goes_on_as_a_new_one(kind: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 100)
    text = " ".join(f"word{n}" for n in range(200))
    data = f"{text}{END_OF_TEXT}{'x' * 250}" if kind == "txt" else "".join(
        json.dumps({"text": part}) + "\n" for part in (text, "x" * 250)
    )  # fmt: skip
    reader = text_reader() if kind == "txt" else line_reader()
    found = run(reader, data.encode(), step)
    assert " ".join(found[:-3]) == text and max(map(len, found)) <= 100
    assert found[-3:] == ["x" * 100, "x" * 100, "x" * 50] and reader.documents == len(found)


def test_a_long_document_is_let_go_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LONGEST_DOCUMENT", 1000)
    reader = text_reader()
    taken = 0
    for _ in range(100):
        taken += sum(len(text) for text in reader.feed(b"x" * 100))
    assert taken == 9000  # all but what the last cut may need
    assert sum(len(text) for text in reader.finish()) == 1000


def blocks(data: bytes, step: int) -> Iterator[bytes]:
    unpacker = Unpacker("f")
    for start in range(0, len(data), step):
        yield from unpacker.feed(data[start : start + step])
    yield from unpacker.finish()


def test_a_small_gzip_of_much_text_comes_in_blocks_of_bounded_size() -> None:
    sizes = [len(block) for block in blocks(gzip.compress(b"a" * (5 * UNPACK_BYTES)), 100)]
    assert sum(sizes) == 5 * UNPACK_BYTES and max(sizes) <= UNPACK_BYTES


def test_a_parquet_file_that_is_one_row_group_comes_in_batches(tmp_path: Path) -> None:
    texts = [f"{n:05} {'tide ' * 200}" for n in range(20_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    texts.clear()
    size = (tmp_path / "a.parquet").stat().st_size
    before = most = pa.total_allocated_bytes()
    for _ in read_file(tmp_path / "a.parquet", "text", where="a.parquet"):
        most = max(most, pa.total_allocated_bytes())
    assert size > 20e6 and most - before < 8e6, (size, most - before)
