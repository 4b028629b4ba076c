"""Parquet: the text in one column. Read in batches, so that memory stays bounded.

The table of contents is at the end, so the finished file is looked at. pyarrow may be missing (the slim image of the
api has none): then the first and last bytes are checked, and `ParquetUnreadableHere` leaves the rest to the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.datasets.kinds import PARQUET_MAGIC
from common.datasets.reading.columns import text_column, texts_of
from common.datasets.reading.documents import Reader
from common.errors import DataError

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20


class ParquetUnreadableHere(DataError):
    """pyarrow is not installed on this machine; nothing is known about the file."""


class ParquetReader(Reader):
    """Reads .parquet, all of it at the end. `path` is where the bytes come to lie."""

    def __init__(self, where: str, text_field: str, path: Path) -> None:
        super().__init__(where, "parquet")
        self._field, self._path = text_field, path

    def _read(self, data: bytes) -> Iterator[str]:
        return iter(())

    def _end(self) -> Iterator[str]:
        with self._path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - len(PARQUET_MAGIC), 0))
            if file.read() != PARQUET_MAGIC:
                raise self._damaged("it does not end with PAR1, so it is cut off or encrypted")
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ParquetUnreadableHere(
                f"{self.where}: a parquet file needs the package pyarrow; install tidal[torch]"
            ) from None
        try:
            # Without these two a whole column of a row group, which may be the whole file, comes into memory.
            with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
                yield from self._texts(file)
        except OSError as error:
            if error.errno is not None:
                raise
            raise self._damaged(error) from None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._damaged(error) from None

    def _texts(self, file: Any) -> Iterator[str]:
        text_column(file.schema_arrow, self._field, self.where)
        row = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[self._field]):
            # The name of a column also selects those that begin with it and a dot.
            column = batch.column(batch.schema.names.index(self._field))
            yield from texts_of(column, self._field, self.where, row)
            row += batch.num_rows

    def _damaged(self, reason: object) -> DataError:
        return self.wrong(f"not a readable parquet file ({' '.join(str(reason).split())[:200]}); write it again")
