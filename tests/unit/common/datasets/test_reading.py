"""Text in blocks of any size gives the same documents as a single split, and the length of documents is limited."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import load_tokenizer
from common.datasets.reading import (
    END_OF_TEXT,
    Reader,
    TooMuchText,
    documents,
    growth,
    json_lines,
    read_file,
    reader_of,
)
from common.datasets.reading.unpacking import UNPACK_BYTES, Unpacker
from common.decoding.frames import MEMORY_BYTES
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
    # The reader keeps the last 1000 characters, because it may still find a better place to cut among them.
    assert taken == 9000
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
    texts = pa.array(["tide " * 200]).take(pa.array([0] * 300_000))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
    del texts
    assert (tmp_path / "a.parquet").stat().st_size > MEMORY_BYTES
    assert sum(1 for _ in read_file(tmp_path / "a.parquet", "text", where="a.parquet")) == 300_000


def test_a_text_that_is_repeated_is_read_in_smaller_batches_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    texts = [letter * 2**18 for letter in "abc"]
    rows = [texts[n % 3] for n in range(900)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet", row_group_size=500, compression="none")
    found = list(read_file(tmp_path / "a.parquet", "text", where="a.parquet"))
    assert [text[0] for text in found] == [row[0] for row in rows] and set(found) == set(texts)


def test_nulls_and_empty_texts_are_skipped(tmp_path: Path) -> None:
    values = [None, "a", "", None, "b", None]
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet", row_group_size=4)
    assert list(read_file(tmp_path / "a.parquet", "text", where="a.parquet")) == ["a", "b"]


def decoders() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "common.decoding.parquet" in child.cmdline()]


def test_the_decoder_ends_with_its_reader(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 2**20 + str(n) for n in range(50)]}), tmp_path / "a.parquet")
    found = read_file(tmp_path / "a.parquet", "text", where="a.parquet")
    next(found)
    (child,) = decoders()
    found.close()
    assert not child.is_running()


def test_the_decoder_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDAL_AUTH_TOKEN", "a secret")
    pq.write_table(pa.table({"text": ["a" * 2**20 + str(n) for n in range(50)]}), tmp_path / "a.parquet")
    found = read_file(tmp_path / "a.parquet", "text", where="a.parquet")
    next(found)
    (child,) = decoders()
    assert not [name for name in child.environ() if name.startswith("TIDAL_")]
    found.close()


def test_a_line_of_many_values_is_refused_and_a_text_of_many_commas_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_VALUES", 100)
    commas = 'a, \\" [b], {c} ' * 100
    assert run(line_reader(), json.dumps({"text": commas}).encode(), 5000) == [commas.strip()]
    many = json.dumps({"text": "a", "of": list(range(99))}).encode()
    with pytest.raises(DataError, match="line 1 has more than 100 values"):
        run(line_reader(), many, 5000)


def test_many_gzip_members_of_a_few_bytes_are_unpacked_in_linear_time() -> None:
    data = b"".join([gzip.compress(b"")] * 200_000) + gzip.compress(b"a")
    assert b"".join(blocks(data, 1 << 20)) == b"a"


def test_a_gzip_that_grows_too_much_is_refused_when_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "ALWAYS_BYTES", 2**20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * 2**21))
    with pytest.raises(DataError, match=r"2,\d+ bytes unpack to more than 1 MiB of text"):
        list(read_file(tmp_path / "a.txt.gz", "text", where="a.txt.gz"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(random.Random(1).randbytes(2**20).hex().encode()))
    assert len("".join(read_file(tmp_path / "b.txt.gz", "text", where="b.txt.gz"))) == 2**21


def test_a_parquet_of_more_text_than_the_limit_is_too_much(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["tide" * 1000] * 1000}), tmp_path / "a.parquet")
    reader = reader_of("parquet", "text", "a.parquet", tmp_path / "a.parquet", limit_bytes=2**20)
    list(reader.feed((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(TooMuchText, match="more than 1 MiB"):
        list(reader.finish())
