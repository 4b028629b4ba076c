"""Restores the datasets of a backup: unpacks missing datasets, and publishes them once all have been verified.

An existing dataset with the same text as in the backup is not changed. An existing dataset with a different text is a
conflict; with `force` it is moved to another folder, never deleted. `common.backup.files` saves datasets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from common.backup.archive import DATASETS, ArchiveMember, ArchiveReader, BackupManifest, Progress
from common.datasets import DatasetManifest, DatasetStore
from common.datasets.manifest import MANIFEST_FILE
from common.datasets.store import IncomingFolder
from common.errors import NotFoundError
from common.files import storage_errors
from common.logging import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class DatasetPlan:
    """The datasets that a restore unpacks from a backup."""

    needed: dict[str, dict[str, ArchiveMember]]
    """{dataset name: {file name: entry}} of the datasets that are missing here or have a different text here."""
    conflicts: tuple[str, ...]
    """Names of the datasets in `needed` that exist here with a different text."""

    @property
    def size(self) -> int:
        """Return the number of bytes to unpack."""
        return sum(entry.size for files in self.needed.values() for entry in files.values())


@dataclass(frozen=True)
class StagedDataset:
    """A dataset that is unpacked and verified but not published yet."""

    folder: IncomingFolder
    manifest: DatasetManifest


def plan_datasets(manifest: BackupManifest, store: DatasetStore) -> DatasetPlan:
    """Compare the datasets of a backup with those in `store`, and return which have to be unpacked."""
    found: dict[str, dict[str, ArchiveMember]] = {}
    for member, entry in manifest.members.items():
        kind, name, *file = member.split("/")
        if kind == DATASETS:
            found.setdefault(name, {})[file[0]] = entry
    needed = {name: files for name, files in found.items() if not _is_here(store, name, files)}
    return DatasetPlan(needed, tuple(sorted(name for name in needed if (store.root / name).exists())))


@contextmanager
def unpacked_datasets(
    archive: ArchiveReader, wanted: DatasetPlan, store: DatasetStore, progress: Progress
) -> Iterator[list[StagedDataset]]:
    """Yield the unpacked datasets of `wanted`. After the block, delete the datasets that the block has not published.

    Datasets that were already damaged when they were saved are skipped with a warning. Raises StorageError if the
    backup is damaged or the disk is full.
    """
    with ExitStack() as folders, storage_errors(store.root):
        staged = []
        for name, files in sorted(wanted.needed.items()):
            folder = store.incoming()
            folders.callback(folder.remove)
            for file in sorted(files):
                archive.extract(f"{DATASETS}/{name}/{file}", folder.path / file, progress)
            manifest = _checked(name, files, folder.path)
            if manifest is not None:
                staged.append(StagedDataset(folder, manifest))
        yield staged


def publish_datasets(staged: list[StagedDataset], store: DatasetStore) -> Path | None:
    """Publish the staged datasets. Existing datasets with the same names are moved to a new folder.

    Returns that folder, or None if no dataset was moved.
    """
    aside = store.root / f".before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for dataset in staged:
        store.move_aside(dataset.manifest.name, aside)
        store.publish(dataset.folder, dataset.manifest)
    return aside if aside.exists() else None


def _is_here(store: DatasetStore, name: str, files: dict[str, ArchiveMember]) -> bool:
    try:
        here = store.find(name)
    except NotFoundError:
        return False
    text = files.get(here.file)
    return text is not None and (text.sha256, text.size) == (here.sha256, here.size_bytes)


def _checked(name: str, files: dict[str, ArchiveMember], folder: Path) -> DatasetManifest | None:
    """Return the manifest of an unpacked dataset; None if the manifest is invalid or does not match the text."""
    try:
        manifest = DatasetManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        manifest = None
    text = files.get(manifest.file) if manifest is not None else None
    if manifest is None or text is None or manifest.name != name or text.sha256 != manifest.sha256:
        log.warning("a dataset was damaged when it was saved and is not restored", dataset=name)
        return None
    return manifest
