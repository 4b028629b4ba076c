"""Receives an upload: unpacks, hashes, checks and writes its bytes, and publishes the dataset once it is complete.

    with DatasetIntake(store, "stories", "txt", limit_bytes=2**30) as intake:
        for block in blocks:
            intake.write(block)
        manifest, created = intake.publish()

All methods block and use constant memory. Leaving the `with` block removes an upload that was not published. If the
process is killed, the kernel releases the lock on the folder of the upload, and `DatasetStore.remove_abandoned` removes
the folder later.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from common.datasets.manifest import DatasetManifest
from common.datasets.reading import ParquetUnreadableHere, TooMuchText, Unpacker, reader_of
from common.datasets.store import DatasetStore, IncomingFolder
from common.errors import TooLargeError
from common.files import flush, require_space, storage_errors
from tidal_client.vocabulary import DatasetFormat

SPACE_CHECK_BYTES = 16 * 1024 * 1024
"""Number of bytes written between two checks of the free space."""


class DatasetIntake:
    """An upload in progress.

    `limit_bytes` limits the decompressed bytes and, for parquet, also the bytes of decoded text. An upload fails if
    fewer than `reserve_bytes` are free on the disk.
    """

    def __init__(
        self,
        store: DatasetStore,
        name: str,
        kind: DatasetFormat,
        *,
        text_field: str = "text",
        limit_bytes: int,
        reserve_bytes: int = 0,
    ) -> None:
        self._store, self._name, self._kind, self._text_field = store, name, kind, text_field
        self._limit, self._reserve = limit_bytes, reserve_bytes
        self._digest = hashlib.sha256()
        self._size = 0
        self._size_at_check = 0
        where = f"{name}.{kind}"
        self._unpack = Unpacker(where)
        with storage_errors(store.root):
            self._folder: IncomingFolder = store.incoming()
        path = self._folder.path / f"text.{kind}"
        self._reader = reader_of(kind, text_field, where, path, limit_bytes=limit_bytes)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Process the next bytes; raise DataError, TooLargeError, or StorageError if the disk is full."""
        for block in self._unpack.feed(data):
            self._write_block(block)

    def publish(self) -> tuple[DatasetManifest, bool]:
        """Publish the dataset. Return its manifest, and False if the same dataset existed already, otherwise True.

        Raises ConflictError if a dataset with this name and a different text exists.
        """
        for block in self._unpack.finish():
            self._write_block(block)
        with storage_errors(self._store.root):
            self._file.flush()
            documents = self._count_documents()
            flush(self._folder.path / f"text.{self._kind}")
            manifest = DatasetManifest(
                name=self._name,
                format=self._kind,
                text_field=self._text_field,
                sha256=self._digest.hexdigest(),
                size_bytes=self._size,
                documents=documents,
                created_at=datetime.now(UTC),
            )
            return self._store.publish(self._folder, manifest)

    def close(self) -> None:
        """Close the file, and remove the folder if the dataset was not published."""
        self._file.close()
        self._folder.remove()

    def _write_block(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._limit:
            raise self._too_large()
        self._digest.update(block)
        for _ in self._reader.feed(block):
            pass
        with storage_errors(self._store.root):
            if self._size - self._size_at_check >= SPACE_CHECK_BYTES:
                require_space(self._store.root, self._reserve)
                self._size_at_check = self._size
            self._file.write(block)

    def _count_documents(self) -> int | None:
        """Return the number of documents; None for a parquet file if this process cannot import pyarrow."""
        try:
            for _ in self._reader.finish():
                pass
        except ParquetUnreadableHere:
            return None
        except TooMuchText:
            raise self._too_large() from None
        return self._reader.documents

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"the dataset is larger than {self._limit // 2**20:,} MiB; split it, or raise TIDAL_DATASET_MAX_MB"
        )
