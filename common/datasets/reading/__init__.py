"""Reads the text documents of files, for uploads, dataset jobs, configurations and `tidal train`.

    reader = reader_of("jsonl", "text", "tales.jsonl", path)   # for an upload, which arrives in blocks of bytes
    for document in read_file(path, "text", where=str(path)):  # for an existing file

docs/datasets.md has the rules. Readers use constant memory. The package does not import torch, and needs pyarrow only
for parquet.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.datasets.kinds import GZIP_MAGIC
from common.datasets.names import split_name
from common.datasets.reading.columns import text_column, texts_of
from common.datasets.reading.documents import END_OF_TEXT, Reader, pieces, require_some
from common.datasets.reading.growth import Growth, TooMuchText
from common.datasets.reading.json_lines import JsonLinesReader
from common.datasets.reading.parquet import ParquetReader, ParquetUnreadableHere
from common.datasets.reading.text import TextReader
from common.datasets.reading.unpacking import Unpacker
from common.errors import DataError

__all__ = [
    "END_OF_TEXT",
    "ParquetUnreadableHere",
    "Reader",
    "TooMuchText",
    "Unpacker",
    "pieces",
    "read_file",
    "reader_of",
    "require_some",
    "text_column",
    "texts_of",
]

BLOCK_BYTES = 1 << 20


def reader_of(kind: str, text_field: str, where: str, path: Path, *, limit_bytes: int | None = None) -> Reader:
    """Return a reader for the format `kind`.

    `where` names the file in errors. `path` is where the complete file will be when the reader's `finish` is called.

    `limit_bytes` limits the decoded text of a parquet file; beyond it TooMuchText is raised.
    """
    if kind == "txt":
        return TextReader(where)
    if kind == "jsonl":
        return JsonLinesReader(where, text_field)
    return ParquetReader(where, text_field, path, limit_bytes)


def read_file(path: Path, text_field: str, *, where: str) -> Iterator[str]:
    """Yield the documents of a local file, which may be gzipped; its suffix decides the format. Raises DataError."""
    kind = split_name(path.name)[1]
    if kind is None:
        raise DataError(f"{where}: the format is unknown; give the file the suffix .txt, .jsonl or .parquet")
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        if packed and kind == "parquet":
            # The footer of a parquet file describes its contents, so the whole file is unpacked first.
            with _unpacked_copy(path, where) as plain:
                yield from _read(plain, kind, text_field, where)
        else:
            yield from _read(path, kind, text_field, where)
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error})") from error


def _read(path: Path, kind: str, text_field: str, where: str) -> Iterator[str]:
    reader = reader_of(kind, text_field, where, path)
    for block in _unpacked(path, where, only_head=kind == "parquet"):
        yield from reader.feed(block)
    yield from reader.finish()


def _unpacked(path: Path, where: str, *, only_head: bool = False) -> Iterator[bytes]:
    unpacker, growth = Unpacker(where), Growth(where, path.stat().st_size)
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            for unpacked in unpacker.feed(block):
                growth.add(len(unpacked))
                yield unpacked
            if only_head:
                return
    yield from unpacker.finish()


@contextmanager
def _unpacked_copy(path: Path, where: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tidal-") as folder:
        copy = Path(folder) / "unpacked"
        with copy.open("wb") as file:
            for block in _unpacked(path, where):
                file.write(block)
        yield copy
