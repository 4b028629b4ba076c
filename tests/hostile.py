"""Decompression bombs for tests of uploads: small files that expand to a lot of data, or that claim to.

`parquet_bombs` returns parquet files, which are written with pyarrow or byte by byte. `packed` yields gzip data of any
length.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MIB = 2**20
LONG = "a" * MIB


def parquet_bombs() -> dict[str, tuple[bytes, str]]:
    """Return {name: (file, part of the expected error text)}. The text is empty if the file must be accepted."""
    return {
        "run-length": (_repeated(1500), "MiB of text"),
        "run-length-million": (_repeated(1_000_000), "MiB of text"),
        "deltas": (_deltas(1500), "MiB of text"),
        "page-zstd": (_one_page("zstd"), "takes more than 256 MiB of memory"),
        "page-gzip": (_one_page("gzip"), "takes more than 256 MiB of memory"),
        "long-text": (_table({"text": ["a" * (17 * MIB)]}), "the text is longer than 16 MiB"),
        "nested-neighbour": (_nested(), ""),
        "nested": (_table({"text": [["a"] * 100_000]}), "'text' is a list"),
        "many-columns": (_many_columns(100_000), "no column 'text'"),
        "page-that-lies": (_raw(page_bytes=2**31 - 1), "takes more than 256 MiB of memory"),
        "rows-that-lie": (_raw(rows=2**62), "not a readable parquet file"),
        "footer-that-lies": (b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1", "not a readable parquet file"),
        "footer-of-columns": (_footer_of_columns(4_000_000), "takes more than 256 MiB of memory"),
    }


def packed(*parts: tuple[bytes, int]) -> Iterator[bytes]:
    """Yield the gzip data of all `parts` in blocks. A part (text, n) stands for n repetitions of the text."""
    packer = zlib.compressobj(9, wbits=31)
    for text, times in parts:
        block = text * max(1, min(times, MIB // len(text)))
        for _ in range(max(1, times * len(text) // len(block))):
            yield packer.compress(block)
    yield packer.flush()


def _table(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **{"compression": "zstd", "store_schema": False, **options})
    return sink.getvalue()


def _repeated(rows: int) -> bytes:
    """Return a table in which each of `rows` rows refers to the same text of 1 MiB in the dictionary."""
    references = pa.array([0], pa.int32()).take(pa.array([0] * rows))
    return _table({"text": pa.DictionaryArray.from_arrays(references, pa.array([LONG]))})


def _deltas(rows: int) -> bytes:
    """Return a table in which each text of 1 MiB is stored as a difference to the equal text before it."""
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink, pa.schema([("text", pa.string())]), compression="zstd", use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY"}, data_page_size=2**30,
    ) as writer:  # fmt: skip
        for _ in range(rows // 300):
            writer.write_table(pa.table({"text": [LONG] * 300}))
    return sink.getvalue()


def _one_page(compression: str) -> bytes:
    """Return a table whose only page contains 300 MiB of text when it is decompressed."""
    return _table({"text": [LONG] * 300}, compression=compression, use_dictionary=False, data_page_size=2**30)


def _nested() -> bytes:
    """Return a harmless table: the row with 40 million numbers is in the column `text.of`, not in the text column."""
    numbers = pa.array([0], pa.int8()).take(pa.array(memoryview(bytes(40_000_000)), pa.int8()))
    lists = pa.ListArray.from_arrays(pa.array([0, len(numbers)], pa.int32()), numbers)
    return _table({"text": ["a"], "text.of": lists}, row_group_size=1, data_page_size=2**30)


# The functions below write parquet footers in Thrift's compact protocol. A struct is given as a list of (field id,
# value) pairs. An int is written as i32, an _I64 as i64, bytes as a string, and any other list as a list.


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class _I64(int):
    """An integer that is written as i64."""


Fields = list[tuple[int, Any]]


def _kind(value: Any) -> int:
    if isinstance(value, _I64):
        return 6
    if isinstance(value, int):
        return 5
    if isinstance(value, bytes):
        return 8
    return 12 if value != [] and isinstance(value[0], tuple) else 9


def _value(value: Any) -> bytes:
    if value == []:
        return b"\x0c"
    kind = _kind(value)
    if kind in (5, 6):
        return _varint(value << 1)
    if kind == 8:
        return _varint(len(value)) + value
    if kind == 12:
        return _struct(value)
    return bytes([0xF0 | _kind(value[0])]) + _varint(len(value)) + b"".join(map(_value, value))


def _struct(fields: Fields) -> bytes:
    out, last = b"", 0
    for number, value in fields:
        out += bytes([(number - last) << 4 | _kind(value)]) + _value(value)
        last = number
    return out + b"\0"


def _file(body: bytes, footer: bytes) -> bytes:
    return b"PAR1" + body + footer + struct.pack("<I", len(footer)) + b"PAR1"


SCHEMA: list[Fields] = [
    [(4, b"schema"), (5, 1)],
    [(1, 6), (3, 0), (4, b"text"), (6, 0)],  # The column is a required string.
]


def _raw(*, page_bytes: int = 5, rows: int = 1) -> bytes:
    """Return a file with one page that contains one text; its headers claim `page_bytes` bytes and `rows` rows."""
    content = b"\x01\x00\x00\x00a"
    packer = zlib.compressobj(9, wbits=31)
    stored = packer.compress(content) + packer.flush()
    values = min(rows, 2**31 - 1)
    page = _struct([(1, 0), (2, page_bytes), (3, len(stored)), (5, [(1, values), (2, 0), (3, 3), (4, 3)])])
    size = _I64(len(page) + len(stored))
    about: Fields = [
        (1, 6), (2, [0, 3]), (3, [b"text"]), (4, 2), (5, _I64(rows)), (6, _I64(page_bytes)), (7, size), (9, _I64(4)),
    ]  # fmt: skip
    group: Fields = [(1, [[(2, _I64(4)), (3, about)]]), (2, size), (3, _I64(rows))]
    return _file(page + stored, _struct([(1, 1), (2, SCHEMA), (3, _I64(rows)), (4, [group])]))


def _many_columns(count: int) -> bytes:
    """Return a table with `count` columns and no rows."""
    columns: list[Fields] = [[(1, 1), (3, 0), (4, b"c%d" % number)] for number in range(count)]
    schema: list[Fields] = [[(4, b"schema"), (5, count)], *columns]
    return _file(b"", _struct([(1, 1), (2, schema), (3, _I64(0)), (4, [])]))


def _footer_of_columns(count: int) -> bytes:
    """Return a footer with `count` column chunks. Each takes 3 bytes in the file and hundreds of bytes in memory."""
    column = b"\x26\x08\x00"  # a column chunk whose only field is file_offset = 4
    groups = count // 100_000
    one = b"\x19\xfc" + _varint(100_000) + column * 100_000 + b"\x16\x02\x16\x02\x00"
    listed = b"\x19\xfc" + _varint(groups) + one * groups
    footer = b"\x15\x02\x19\xfc" + _varint(2) + b"".join(map(_struct, SCHEMA)) + b"\x16\x02" + listed + b"\x00"
    return _file(b"", footer)
