"""One upload: bytes in, unpacked, hashed, checked, written under a temporary name; published whole or not at all.

    with Intake(store, "stories", "txt", limit_bytes=2**30) as intake:
        for block in blocks:
            intake.write(block)
        manifest, created = intake.publish()

Blocking, in constant memory; who leaves the block without `publish` leaves nothing behind. A killed process leaves a
folder whose lock the kernel has dropped; `DatasetStore.sweep` removes it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from common.datasets.manifest import Manifest
from common.datasets.reading import ParquetUnreadableHere, TooMuchText, Unpacker, reader_of
from common.datasets.store import DatasetStore, IncomingFolder
from common.errors import TooLargeError
from common.files import flush, require_space, storage_errors
from tidal_client.vocabulary import DatasetFormat

LOOK_BYTES = 16 * 1024 * 1024
"""Bytes between two checks of the free space."""


class Intake:
    """An upload in progress.

    `limit_bytes` is the most decompressed bytes, for parquet also of decoded text; `reserve_bytes` of the disk are kept
    free.
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
        self._looked_at = 0
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
        """The next bytes. DataError, TooLargeError, or StorageError when the disk is full."""
        for block in self._unpack.feed(data):
            self._take(block)

    def publish(self) -> tuple[Manifest, bool]:
        """The manifest, and whether the dataset is new; it is not when the same text lies there under this name.

        ConflictError when another text does.
        """
        for block in self._unpack.finish():
            self._take(block)
        with storage_errors(self._store.root):
            self._file.flush()
            documents = self._documents()
            flush(self._folder.path / f"text.{self._kind}")
            manifest = Manifest(
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
        """Remove what was not published."""
        self._file.close()
        self._folder.remove()

    def _take(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._limit:
            raise self._too_large()
        self._digest.update(block)
        for _ in self._reader.feed(block):
            pass
        with storage_errors(self._store.root):
            if self._size - self._looked_at >= LOOK_BYTES:
                require_space(self._store.root, self._reserve)
                self._looked_at = self._size
            self._file.write(block)

    def _documents(self) -> int | None:
        """How many there are; None where only the worker can look."""
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
