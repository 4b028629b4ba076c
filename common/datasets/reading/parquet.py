"""Reads the text column of a parquet file, which a child process with limited memory decodes (`common.decoding`).

The file is read once it is complete, because the footer describes its contents. If pyarrow is not installed, as in the
slim image of the api, only the first and last bytes are checked, and `ParquetUnreadableHere` is raised so that a worker
reads the file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

from common.datasets.kinds import PARQUET_MAGIC
from common.datasets.reading.columns import require_text
from common.datasets.reading.documents import Reader
from common.datasets.reading.growth import Growth
from common.decoding.child import DecodingFailed, can_decode, decode_column
from common.decoding.frames import MEMORY_BYTES, MOST_TEXT_BYTES, NULL, SCHEMA, DecodingFailure, Frame
from common.errors import DataError

ROW_BYTES = 16
"""Number of bytes that count for each row in addition to its text, so that the number of empty rows is limited, too."""


class ParquetUnreadableHere(DataError):
    """The file cannot be checked, because pyarrow is not installed on this machine."""


class ParquetReader(Reader):
    """Reads a .parquet file in `finish`, when the file at `path` is complete.

    `limit_bytes` limits the decoded text. `Growth` also limits it in relation to the size of the file.
    """

    def __init__(self, where: str, text_field: str, path: Path, limit_bytes: int | None = None) -> None:
        super().__init__(where, "parquet")
        self._field, self._path, self._limit = text_field, path, limit_bytes

    def _read(self, data: bytes) -> Iterator[str]:
        return iter(())

    def _end(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(size - len(PARQUET_MAGIC), 0))
            if file.read() != PARQUET_MAGIC:
                raise self._damaged("it does not end with PAR1, so it is cut off or encrypted")
        if not can_decode():
            raise ParquetUnreadableHere(f"{self.where}: a parquet file needs the package pyarrow; install tidal[torch]")
        growth = Growth(self.where, size, self._limit)
        row = 0
        try:
            for frame in decode_column(self._path, self._field):
                if frame.kind == SCHEMA:
                    require_text(frame.payload, self._field, self.where)
                    continue
                growth.add(len(frame.payload) + (ROW_BYTES - 4) * frame.rows)
                yield from self._texts(frame, row)
                row += frame.rows
        except DecodingFailed as error:
            raise self._failed(error.failure) from None

    def _texts(self, frame: Frame, row: int) -> Iterator[str]:
        lengths = array("i")
        begin = lengths.itemsize * frame.rows
        lengths.frombytes(frame.payload[:begin])
        for length in lengths:
            row += 1
            if length == NULL:
                continue
            end = begin + length
            try:
                yield frame.payload[begin:end].decode()
            except UnicodeDecodeError as error:  # parquet writers may store invalid UTF-8
                raise self.error(
                    f"row {row:,}: '{self._field}' is not UTF-8 ({error.reason}); "
                    "encode the column as UTF-8 and write the file again"
                ) from None
            begin = end

    def _failed(self, failure: DecodingFailure) -> DataError:
        place = f"row {failure['row'] + 1:,}"
        if failure["kind"] == "memory":
            return self.error(
                f"decoding the file from {place} on takes more than {MEMORY_BYTES // 2**20} MiB of memory, because a "
                "page, a text or the footer is too large; write the file again with smaller pages and row groups"
            )
        if failure["kind"] == "long":
            return self.error(f"{place}: the text is longer than {MOST_TEXT_BYTES // 2**20} MiB; split the text")
        if failure["kind"] == "system":
            return self.error(f"cannot be read ({failure['reason']})")
        return self._damaged(failure["reason"])

    def _damaged(self, reason: object) -> DataError:
        return self.error(f"not a readable parquet file ({' '.join(str(reason).split())[:200]}); write it again")
