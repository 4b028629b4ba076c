"""Creates a backup while services run.

The rows are saved before the files. Because services write a file before the row that refers to it, all files of the
saved rows exist when the files are saved. The exceptions are checkpoints that a training has pruned after the rows were
saved. With the opposite order, a backup could contain a finished job without its model. Saved checkpoints may be newer
than the rows, which does no harm: an attempt resumes from the newest intact checkpoint on disk. Each dataset is saved
completely or not at all. Symbolic links are not saved but reported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import SecretStr

from common.backup.archive import DATASETS, EXPERIMENTS, TABLES, ArchiveWriter, BackupManifest, Progress
from common.backup.files import SavedFiles
from common.backup.rows import Dump, dump_rows
from common.db import make_engine, require_schema, schema_status
from common.errors import ConflictError
from common.files import flush, storage_errors, write_atomic


@dataclass(frozen=True)
class BackupResult:
    """Path, size and contents of a new backup."""

    path: Path
    size: int
    """Size of the file in bytes."""
    created_at: datetime
    jobs: int
    experiments: int
    files: int
    """Number of files of experiments."""
    datasets: int
    skipped: tuple[Path, ...]
    """Symbolic links, which are not saved."""


def create_backup(
    target: Path,
    *,
    database_url: str | SecretStr,
    experiments_dir: Path,
    data_dir: Path,
    datasets: bool = True,
    total: Callable[[int], None] = lambda size: None,
    progress: Progress = lambda size: None,
) -> BackupResult:
    """Save rows, files and datasets to the new file `target` (mode 0600), which appears only once it is complete.

    With `datasets`, uploaded datasets are saved as well; other files below `data_dir` are never saved. `total` is
    called with the expected size of the backup in bytes, `progress` with the number of bytes written since its last
    call. Raises ConflictError if `target` exists, UnavailableError if the schema of the database is not that of
    this version of Tidal, and StorageError if a file cannot be read or written.
    """
    if target.exists():
        raise ConflictError(f"{target} already exists and is not replaced; choose another name")
    files = SavedFiles(experiments_dir, data_dir if datasets else None)
    engine = make_engine(database_url, application_name="tidal-backup", pool_size=1, statement_timeout=0)
    # Write the rows to temporary files next to `target`, because /tmp may be small or in memory.
    with storage_errors(target), _scratch(target.parent) as rows:
        try:
            require_schema(engine)
            revision = schema_status(engine).head
            dump = dump_rows(engine, rows, lambda size: None)
        finally:
            engine.dispose()
        tables = {f"{TABLES}/{path.name}": path for path in sorted(rows.iterdir())}
        expected = sum(path.stat().st_size for path in tables.values()) + files.size()
        total(expected)
        manifests: list[BackupManifest] = []

        def write(temporary: Path) -> None:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                archive = ArchiveWriter(file, progress)
                for member, path in tables.items():
                    with path.open("rb") as source:
                        archive.add(member, source, path.stat().st_size)
                files.add_to(archive)
                manifests.append(_manifest(dump, revision, archive))
                archive.finish(manifests[0])
            flush(temporary)

        write_atomic(target, write, needed_bytes=expected)
    members = [name.split("/") for name in manifests[0].members]
    return BackupResult(
        path=target,
        size=target.stat().st_size,
        created_at=dump.created_at,
        jobs=dump.tables["jobs"].rows,
        experiments=len({parts[1] for parts in members if parts[0] == EXPERIMENTS}),
        files=sum(parts[0] == EXPERIMENTS for parts in members),
        datasets=len({parts[1] for parts in members if parts[0] == DATASETS}),
        skipped=tuple(sorted(files.skipped)),
    )


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Create a temporary folder in `place`, which is created if missing, and delete it after the block."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tidal-backup-", dir=place) as name:
        yield Path(name)


def _manifest(dump: Dump, revision: str, archive: ArchiveWriter) -> BackupManifest:
    try:
        tidal = version("tidal")
    except PackageNotFoundError:
        tidal = "source"
    return BackupManifest(
        tidal=tidal,
        created_at=dump.created_at,
        revision=revision,
        tables=dump.tables,
        members=archive.members,
    )
