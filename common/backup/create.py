"""Write a backup beside a working system.

Rows first, then files. A file is on disk before its row exists, so every file a row of the snapshot names is still
there or was pruned for a newer one; the other order could save a finished job without its model. Checkpoints that are
newer than the rows are found by the next attempt, which begins with the newest sound one on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from common.artifacts import ArtifactStore
from common.backup.archive import EXPERIMENTS, TABLES, ArchiveWriter, Manifest, Progress
from common.backup.rows import Dump, dump_rows
from common.db import make_engine, require_schema, schema_status
from common.errors import ConflictError, StorageError
from common.files import flush, storage_errors, write_atomic

SMALL = 8 * 1024 * 1024
"""Bytes of a file that is read at once: what is appended to or cut meanwhile is then saved as it was."""
PASSES = 5
"""Looks at one experiment: what was written while it was copied is copied too, until nothing is new."""
CHECKPOINT = "manifest.json"
"""A folder that holds this is saved whole or not at all."""


@dataclass(frozen=True)
class Saved:
    """What a backup holds."""

    path: Path
    size: int
    created_at: datetime
    jobs: int
    experiments: int
    files: int


def create_backup(
    target: Path,
    *,
    database_url: str | SecretStr,
    experiments_dir: Path,
    total: Callable[[int], None] = lambda size: None,
    progress: Progress = lambda size: None,
) -> Saved:
    """Save everything into the new file `target`, which appears when it is whole (mode 0600).

    `total` is told the bytes expected, `progress` of those done. ConflictError when `target` exists, UnavailableError
    when the tables are not those of this version, StorageError when the disk refuses.
    """
    if target.exists():
        raise ConflictError(f"{target} exists; a backup never replaces a file")
    store = ArtifactStore(experiments_dir)
    engine = make_engine(database_url, application_name="tidal-backup", pool_size=1, statement_timeout=0)
    with storage_errors(target), tempfile.TemporaryDirectory(prefix="tidal-backup-") as name:
        rows = Path(name)
        try:
            require_schema(engine)
            revision = schema_status(engine).head
            dump = dump_rows(engine, rows, lambda size: None)
        finally:
            engine.dispose()
        tables = {f"{TABLES}/{path.name}": path for path in sorted(rows.iterdir())}
        expected = sum(path.stat().st_size for path in tables.values()) + _size(store)
        total(expected)
        manifests: list[Manifest] = []

        def write(temporary: Path) -> None:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                archive = ArchiveWriter(file, progress)
                for member, path in tables.items():
                    with path.open("rb") as source:
                        archive.add(member, source, path.stat().st_size)
                for experiment in reversed(store.experiments()):
                    _add_experiment(archive, store.experiment(experiment))
                manifests.append(_manifest(dump, revision, archive))
                archive.finish(manifests[0])
            flush(temporary)

        write_atomic(target, write, needed_bytes=expected)
    files = [name.split("/") for name in manifests[0].members if name.startswith(f"{EXPERIMENTS}/")]
    return Saved(
        path=target,
        size=target.stat().st_size,
        created_at=dump.created_at,
        jobs=dump.tables["jobs"].rows,
        experiments=len({parts[1] for parts in files}),
        files=len(files),
    )


def _manifest(dump: Dump, revision: str, archive: ArchiveWriter) -> Manifest:
    try:
        tidal = version("tidal")
    except PackageNotFoundError:
        tidal = "source"
    return Manifest(
        tidal=tidal,
        created_at=dump.created_at,
        revision=revision,
        tables=dump.tables,
        members=archive.members,
    )


def _add_experiment(archive: ArchiveWriter, folder: Path) -> None:
    """Every file, newest checkpoints first: those would be missed most, and the oldest may be pruned meanwhile."""
    done: set[Path] = set()
    for _ in range(PASSES):
        new = [unit for unit in _units(folder) if not done.issuperset(unit)]
        if not new:
            return
        for unit in new:
            done.update(unit)
            _add(archive, folder, unit)


def _add(archive: ArchiveWriter, folder: Path, unit: tuple[Path, ...]) -> None:
    """Files that belong together, all or none. Once open they can be read to their end, whoever deletes them."""
    with ExitStack() as opened:
        sources: list[BinaryIO] = []
        try:
            with _readable():
                sources = [opened.enter_context(path.open("rb")) for path in unit]
        except FileNotFoundError:
            return  # pruned: a newer one is there
        for path, source in zip(unit, sources, strict=True):
            state = os.fstat(source.fileno())
            name = f"{EXPERIMENTS}/{folder.name}/{path.relative_to(folder).as_posix()}"
            if state.st_size > SMALL:
                archive.add(name, source, state.st_size, state.st_mtime)
                continue
            with tempfile.SpooledTemporaryFile(max_size=2 * SMALL) as copy:
                shutil.copyfileobj(source, copy)
                size = copy.tell()
                copy.seek(0)
                archive.add(name, copy, size, state.st_mtime)


def _units(folder: Path) -> Iterator[tuple[Path, ...]]:
    """Folders before the files beside them: what points to a checkpoint (best.json) is read after the checkpoint.

    Names that begin with a dot are half-written or damaged.
    """
    try:
        with _readable():
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except FileNotFoundError:
        return  # pruned, or the experiment was deleted
    entries = [entry for entry in entries if not entry.name.startswith(".") and not entry.is_symlink()]
    for entry in entries:
        if entry.is_dir():
            yield from _units(Path(entry.path))
    files = [Path(entry.path) for entry in entries if entry.is_file()]
    if any(path.name == CHECKPOINT for path in files):
        yield tuple(sorted(files, key=lambda path: path.name == CHECKPOINT))
    else:
        yield from ((path,) for path in files)


@contextmanager
def _readable() -> Iterator[None]:
    """An OSError names what could not be read; that something is gone is for the caller."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be read ({error.strerror}); nothing was saved") from error


def _size(store: ArtifactStore) -> int:
    """Of what is there now; experiments that are deleted or pruned at this moment do not count."""
    size = 0
    for name in store.experiments():
        with suppress(FileNotFoundError):
            size += sum(file.size_bytes for file in store.files(name))
    return size
