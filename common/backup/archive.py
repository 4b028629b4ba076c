"""Reads and writes backup files: tar archives with a manifest that has the SHA-256 of every other member.

The manifest, `manifest.json`, is the last member, so a truncated archive has none. The other members are
`tables/<name>.copy` (rows in PostgreSQL's text format), `experiments/<id>/…` (files of experiments) and
`datasets/<name>/…` (uploaded text). The archive is not compressed, because weights hardly compress. A backup may be
forged; the reader therefore unpacks only regular files whose size is that in the manifest and whose name can occur in a
backup.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, BinaryIO, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.datasets import is_dataset_name
from common.datasets.manifest import FORMATS, TOKENS_FILE
from common.datasets.manifest import MANIFEST_FILE as DATASET_MANIFEST
from common.errors import InvalidInputError, StorageError
from common.files import path_problem, shortened

MANIFEST = "manifest.json"
TABLES = "tables"
EXPERIMENTS = "experiments"
DATASETS = "datasets"
BLOCK = 1024 * 1024
MOST_MANIFEST_BYTES = 512 * 1024 * 1024
"""Largest manifest that is read, in bytes; a manifest of this size lists about three million files."""
_HEADER_ERRORS = (tarfile.TarError, ValueError, OverflowError)
"""Errors that `tarfile` raises for a damaged header, including errors in its numbers and texts."""
_TABLE = re.compile(r"[a-z_]{1,63}")
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DATASET_FILES = frozenset({DATASET_MANIFEST, TOKENS_FILE, *(f"text.{kind}" for kind in FORMATS)})

Progress = Callable[[int], None]
"""A function that is called with the number of bytes processed since its last call."""


class ByteSource(Protocol):
    """An object with a method `read` that returns bytes, such as a binary file."""

    def read(self, count: int = -1, /) -> bytes:
        """Return at most `count` bytes (all remaining bytes if `count` is negative), or b"" at the end."""


class ArchiveMember(BaseModel):
    """Digest and size in bytes of one member of the archive."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int = Field(ge=0)


class SavedTable(BaseModel):
    """The number of saved rows of a table, and its columns in the order in which the rows contain them."""

    model_config = ConfigDict(frozen=True)

    columns: list[str]
    rows: int


class BackupManifest(BaseModel):
    """The manifest, which lists the contents of a backup."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    tidal: str
    """Version of Tidal that wrote the backup."""
    created_at: datetime
    """Time of the snapshot of the rows, by the database's clock. Files were read afterwards."""
    revision: str
    """Alembic revision of the saved tables."""
    tables: dict[str, SavedTable]
    """{name: table}, in an order in which the tables can be loaded without violating foreign keys."""
    members: dict[str, ArchiveMember]

    @property
    def size(self) -> int:
        """Return the total size of all members in bytes."""
        return sum(entry.size for entry in self.members.values())


class ArchiveWriter:
    """Writes a new archive. `add` adds a member, and `finish` adds the manifest."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)
        self._progress = progress
        self.members: dict[str, ArchiveMember] = {}

    def add(self, name: str, source: ByteSource, size: int, modified: float = 0.0) -> None:
        """Add a member with the first `size` bytes of `source`; raise OSError if `source` has fewer bytes."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime = size, int(modified)
        reader = _Hashing(source, self._progress)
        self._tar.addfile(info, reader)
        self.members[name] = ArchiveMember(sha256=reader.digest.hexdigest(), size=size)

    def finish(self, manifest: BackupManifest) -> None:
        """Write the manifest and close the archive."""
        text = manifest.model_dump_json(indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(text)
        self._tar.addfile(info, io.BytesIO(text))
        self._tar.close()


class ArchiveReader:
    """An existing backup, opened for reading.

    The constructor raises InvalidInputError if the file is missing or is not a backup, StorageError if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise InvalidInputError(f"{path}: no such file")
        try:
            self._tar = tarfile.TarFile(path)
        except _HEADER_ERRORS as error:
            raise InvalidInputError(f"{path} is not a backup of Tidal ({error})") from error
        try:
            self._members = {member.name: member for member in self._tar.getmembers()}
            self.manifest = self._read_manifest()
        except _HEADER_ERRORS as error:
            self._tar.close()
            raise StorageError(f"{path} is truncated or damaged ({error})") from error
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def extract(self, name: str, target: Path, progress: Progress) -> None:
        """Write a member to the new file `target`; raise StorageError if the member does not match the manifest."""
        entry, member = self.manifest.members[name], self._members.get(name)
        if member is None:
            raise StorageError(f"{self.path} is damaged: {name} is missing")
        source = self._open(member, entry.size)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with source, target.open("xb") as file:
                reader = _Hashing(source, progress)
                while block := reader.read(BLOCK):
                    file.write(block)
        except (tarfile.TarError, EOFError) as error:
            raise StorageError(f"{self.path} is damaged: {name} cannot be read ({error})") from error
        if reader.digest.hexdigest() != entry.sha256:
            raise StorageError(f"{self.path} is damaged: the SHA-256 of {name} differs from that in the manifest")

    def _open(self, member: tarfile.TarInfo, size: int) -> IO[bytes]:
        """Open a member that is a regular file of `size` bytes; raise StorageError for any other member.

        A sparse member can declare any size without storing the bytes, and a link refers to another member's bytes.
        """
        if not member.isreg() or member.issparse():
            raise StorageError(f"{self.path}: {member.name} is not a regular file, so Tidal did not write this backup")
        if member.size != size:
            raise StorageError(
                f"{self.path} is damaged: {member.name} has {member.size:,} bytes, but the manifest lists {size:,}"
            )
        source = self._tar.extractfile(member)
        assert source is not None, "a regular file has bytes"
        return source

    def _read_manifest(self) -> BackupManifest:
        member = self._members.get(MANIFEST)
        if member is None:
            raise StorageError(f"{self.path} has no manifest, so it is truncated or not a backup of Tidal")
        if member.size > MOST_MANIFEST_BYTES:
            raise StorageError(f"{self.path}: its manifest is larger than {MOST_MANIFEST_BYTES // 2**20} MiB")
        source = self._open(member, member.size)
        try:
            manifest = BackupManifest.model_validate_json(source.read())
        except ValidationError as error:
            raise StorageError(f"{self.path}: the manifest cannot be read ({error.errors()[0]['msg']})") from error
        for name in (*manifest.members, *(f"{TABLES}/{table}.copy" for table in manifest.tables)):
            if not _is_member(name):
                raise StorageError(f"{self.path}: {shortened(name)} is not a name that a backup can contain")
        return manifest


def read_manifest(path: Path) -> BackupManifest:
    """Return the manifest of the backup at `path` without verifying the members."""
    with ArchiveReader(path) as archive:
        return archive.manifest


def _is_member(name: str) -> bool:
    """Return whether `name` can occur in a backup, which excludes names outside the target folder."""
    if path_problem(name) is not None or PurePosixPath(name).as_posix() != name:
        return False
    kind, *parts = name.split("/")
    if kind == TABLES:
        return len(parts) == 1 and parts[0].endswith(".copy") and bool(_TABLE.fullmatch(parts[0].removesuffix(".copy")))
    if kind == DATASETS:
        return len(parts) == 2 and is_dataset_name(parts[0]) and parts[1] in _DATASET_FILES
    return kind == EXPERIMENTS and len(parts) > 1 and bool(_EXPERIMENT.fullmatch(parts[0])) and ".." not in parts


class _Hashing:
    """Reads from `source`, computes the digest of the bytes and passes their number to `progress`."""

    def __init__(self, source: ByteSource, progress: Progress) -> None:
        self._source, self._progress = source, progress
        self.digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        data = self._source.read(count)
        self.digest.update(data)
        self._progress(len(data))
        return data
