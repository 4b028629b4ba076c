"""Copies the files of experiments and datasets into a backup while other processes write and delete files.

All files of a checkpoint or a dataset are opened before the first one is read, because open files remain readable after
a deletion. A checkpoint or dataset is thus saved completely or not at all. Symbolic links are not saved but reported,
because they may refer to any file of the machine.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from common.artifacts import ArtifactStore
from common.backup.archive import DATASETS, EXPERIMENTS, ArchiveWriter
from common.datasets import DatasetStore
from common.datasets.manifest import MANIFEST_FILE
from common.errors import StorageError
from common.logging import get_logger

log = get_logger(__name__)

COPY_FIRST_BYTES = 8 * 1024 * 1024
"""Files of up to this size in bytes are first copied to memory or a temporary file, because another process may change
their size while they are saved. Larger files are saved directly."""
PASSES = 5
"""Maximum number of passes over one experiment; each pass saves the files that appeared during the previous one."""
CHECKPOINT = "manifest.json"
"""Name of the file that marks a checkpoint folder, which is saved completely or not at all."""


class SavedFiles:
    """The files to save. Without `data_dir`, datasets are not saved. `skipped` collects symbolic links."""

    def __init__(self, experiments_dir: Path, data_dir: Path | None) -> None:
        self._store = ArtifactStore(experiments_dir)
        self._datasets = None if data_dir is None else DatasetStore(data_dir)
        self.skipped: set[Path] = set()

    def size(self) -> int:
        """Return the total size of the files in bytes; files deleted in the meantime are not counted."""
        size = 0
        for folder in self._experiments():
            with suppress(FileNotFoundError):
                size += sum(file.size_bytes for file in self._store.files(folder.name))
        for folder in self._dataset_folders():
            for path in self._plain(folder):
                with suppress(FileNotFoundError):
                    size += path.stat().st_size
        return size

    def add_to(self, archive: ArchiveWriter) -> None:
        """Write all files to `archive`; raise StorageError, which names the file, if a file cannot be read."""
        for folder in self._experiments():
            self._add_experiment(archive, folder)
        for folder in self._dataset_folders():
            files = sorted(self._plain(folder), key=lambda path: path.name == MANIFEST_FILE)
            _add(archive, f"{DATASETS}/{folder.name}", folder, tuple(files))

    def _experiments(self) -> list[Path]:
        """Return the folders of the experiments, oldest first."""
        return [
            path for name in reversed(self._store.experiments()) if not self._is_link(path := self._store.root / name)
        ]

    def _dataset_folders(self) -> list[Path]:
        if self._datasets is None:
            return []
        return [path for name in self._datasets.names() if not self._is_link(path := self._datasets.root / name)]

    def _add_experiment(self, archive: ArchiveWriter, folder: Path) -> None:
        """Add all files of `folder`, the newest checkpoints first, so that any checkpoints pruned meanwhile are old."""
        done: set[Path] = set()
        for _ in range(PASSES):
            new = [unit for unit in self._units(folder) if not done.issuperset(unit)]
            if not new:
                return
            for unit in new:
                done.update(unit)
                _add(archive, f"{EXPERIMENTS}/{folder.name}", folder, unit)

    def _units(self, folder: Path) -> Iterator[tuple[Path, ...]]:
        """Yield groups of files to save together.

        Subfolders come first, so that best.json is saved after the checkpoint that it names.
        """
        entries = self._entries(folder)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self._units(Path(entry.path))
        files = [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        if any(path.name == CHECKPOINT for path in files):
            yield tuple(sorted(files, key=lambda path: path.name == CHECKPOINT))
        else:
            yield from ((path,) for path in files)

    def _plain(self, folder: Path) -> list[Path]:
        return [Path(entry.path) for entry in self._entries(folder) if entry.is_file(follow_symlinks=False)]

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return a folder's entries except symbolic links and hidden entries (unfinished or damaged checkpoints)."""
        try:
            with _readable():
                found = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except FileNotFoundError:
            return []  # another process has deleted the folder
        return [entry for entry in found if not entry.name.startswith(".") and not self._is_link(Path(entry.path))]

    def _is_link(self, path: Path) -> bool:
        if not path.is_symlink():
            return False
        if path not in self.skipped:
            log.warning("a symbolic link is not saved", path=str(path))
            self.skipped.add(path)
        return True


def _add(archive: ArchiveWriter, prefix: str, folder: Path, unit: tuple[Path, ...]) -> None:
    """Add a group of files. If one of them no longer exists, add none."""
    with ExitStack() as opened:
        sources: list[io.BufferedReader] = []
        try:
            with _readable():
                sources = [opened.enter_context(file) for file in _opened(unit)]
        except FileNotFoundError:
            return  # another process has deleted the folder
        for path, source in zip(unit, sources, strict=True):
            state = os.fstat(source.fileno())
            name = f"{prefix}/{path.relative_to(folder).as_posix()}"
            if state.st_size > COPY_FIRST_BYTES:
                archive.add(name, source, state.st_size, state.st_mtime)
                continue
            with tempfile.SpooledTemporaryFile(max_size=2 * COPY_FIRST_BYTES) as copy:
                shutil.copyfileobj(source, copy)
                size = copy.tell()
                copy.seek(0)
                archive.add(name, copy, size, state.st_mtime)


def _opened(unit: tuple[Path, ...]) -> list[io.BufferedReader]:
    """Open files of one folder without following links, even if another folder takes its place meanwhile."""
    folder = os.open(unit[0].parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    with ExitStack() as opened:
        try:
            files = [
                opened.enter_context(os.fdopen(os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb"))
                for path in unit
            ]
        finally:
            os.close(folder)
        opened.pop_all()
        return files


@contextmanager
def _readable() -> Iterator[None]:
    """Convert an OSError to a StorageError that names the file. FileNotFoundError is not converted."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be read ({error.strerror}); no backup was written") from error
