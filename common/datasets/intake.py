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
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from common.datasets.checks import check_for
from common.datasets.manifest import Format, Manifest
from common.datasets.store import DatasetStore, IncomingFolder
from common.errors import DataError, TooLargeError
from common.files import flush, require_space, storage_errors

GZIP_MAGIC = b"\x1f\x8b"
UNPACK_BYTES = 1024 * 1024
"""Most that is unpacked at once: a small upload may hold any amount of text."""
LOOK_BYTES = 16 * 1024 * 1024
"""Between two looks at the free space."""
RESERVE_BYTES = 256 * 1024 * 1024
"""Free space that uploads leave to the rest of Tidal."""


class Intake:
    """An upload under way. `limit_bytes` counts unpacked bytes."""

    def __init__(
        self, store: DatasetStore, name: str, kind: Format, *, text_field: str = "text", limit_bytes: int
    ) -> None:
        self._store, self._name, self._kind, self._text_field = store, name, kind, text_field
        self._limit = limit_bytes
        self._digest = hashlib.sha256()
        self._size = 0
        self._looked_at = 0
        self._start = b""
        self._unpack: _Gunzip | None = None
        self._begun = False
        with storage_errors(store.root):
            self._folder: IncomingFolder = store.incoming()
        path = self._folder.path / f"text.{kind}"
        self._check = check_for(kind, text_field, path)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """The next bytes. DataError, TooLargeError, or StorageError when the disk is full."""
        if not self._begun:
            # Two bytes tell gzip from text; they may come one by one.
            self._start += data
            if len(self._start) < len(GZIP_MAGIC):
                return
            self._begin()
            data, self._start = self._start, b""
        self._take(data)

    def publish(self) -> tuple[Manifest, bool]:
        """The manifest, and whether the dataset is new; it is not when the same text lies there under this name.

        ConflictError when another text does.
        """
        if not self._begun:
            self._begin()
            self._take(self._start)
        if self._unpack is not None:
            self._unpack.finish()
        if self._size == 0:
            raise DataError("the upload is empty")
        with storage_errors(self._store.root):
            self._file.flush()
            documents = self._check.finish()
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

    def _begin(self) -> None:
        self._begun = True
        if self._start.startswith(GZIP_MAGIC):
            self._unpack = _Gunzip()

    def _take(self, data: bytes) -> None:
        for block in self._unpack.blocks(data) if self._unpack is not None else (data,):
            self._size += len(block)
            if self._size > self._limit:
                raise TooLargeError(
                    f"the dataset is larger than {self._limit // 2**20:,} MiB; split it, or raise TIDAL_DATASET_MAX_MB"
                )
            self._digest.update(block)
            self._check.feed(block)
            with storage_errors(self._store.root):
                if self._size - self._looked_at >= LOOK_BYTES:
                    require_space(self._store.root, RESERVE_BYTES)
                    self._looked_at = self._size
                self._file.write(block)


class _Gunzip:
    """Unpacks gzip, of one or several members, in blocks of bounded size."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._rest = b""

    def blocks(self, data: bytes) -> Iterator[bytes]:
        """What `data` adds."""
        while data:
            if self._member.eof:
                if not data.strip(b"\0"):  # padding
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                block = self._member.decompress(data, UNPACK_BYTES)
            except zlib.error as error:
                raise DataError(f"the gzip is damaged ({error})") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if block:
                yield block

    def finish(self) -> None:
        """DataError when the end is missing."""
        if not self._member.eof:
            raise DataError("the gzip is cut off")
