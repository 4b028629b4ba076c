"""Finds, lists, publishes and deletes the datasets of a data folder, and removes the leftovers of killed processes.

One rename publishes or deletes a dataset. Folders named `.incoming-…` are uploads in progress, those named `.deleted-…`
are being deleted. The process that writes an upload holds a lock on the upload's folder, and `remove_abandoned` does
not remove locked folders.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from common.datasets.manifest import MANIFEST_FILE, TOKENS_FILE, DatasetManifest, TokenRecord
from common.datasets.names import check_name, is_dataset_name
from common.errors import ConflictError, NotFoundError
from common.files import flush, storage_errors, write_atomic, write_text

FOLDER = "datasets"
CACHE = "cache"
INCOMING = ".incoming-"
DELETED = ".deleted-"
LOCK = ".lock"


class IncomingFolder:
    """The locked folder of a dataset that is not published yet."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._held = True

    def remove(self) -> None:
        """Release the lock, and remove the folder if the dataset was not published."""
        if self._held:
            self._held = False
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)


class DatasetStore:
    """The datasets in `<data_dir>/datasets`, a local folder that is created by the first upload."""

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.root = self.data_dir / FOLDER

    def names(self) -> list[str]:
        """Return the names of all datasets in alphabetical order."""
        try:
            return sorted(path.name for path in self.root.iterdir() if self.has(path.name))
        except OSError:
            return []

    def has(self, name: str) -> bool:
        """Return whether a dataset with this name exists."""
        return is_dataset_name(name) and (self.root / name / MANIFEST_FILE).is_file()

    def manifests(self) -> list[DatasetManifest]:
        """Return the manifests of all datasets, newest first; folders without a readable manifest are ignored."""
        found = []
        for name in self.names():
            with suppress(NotFoundError):
                found.append(self.find(name))
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.name), reverse=True)

    def find(self, name: str) -> DatasetManifest:
        """Return the manifest of a dataset; raise NotFoundError if it does not exist or its manifest is unreadable."""
        path = self.root / check_name(name, location="path.name") / MANIFEST_FILE
        try:
            return DatasetManifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"there is no dataset {name!r}") from None
        except (OSError, ValidationError) as error:
            message = f"dataset {name!r}: {MANIFEST_FILE} cannot be read; upload the dataset again"
            raise NotFoundError(message) from error

    def text(self, manifest: DatasetManifest) -> Path:
        """Return the path of a dataset's text."""
        return self.root / manifest.name / manifest.file

    def tokens(self, manifest: DatasetManifest) -> TokenRecord | None:
        """Return the record of the dataset's tokens; None if the dataset has not been tokenised yet."""
        try:
            record = TokenRecord.model_validate_json((self.root / manifest.name / TOKENS_FILE).read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.sha256 == manifest.sha256 else None

    def record_tokens(self, name: str, record: TokenRecord) -> None:
        """Save the record of a dataset's tokens; may raise StorageError."""
        text = record.model_dump_json(indent=2) + "\n"
        write_atomic(self.root / name / TOKENS_FILE, lambda temporary: write_text(temporary, text))

    def incoming(self) -> IncomingFolder:
        """Create a folder for an upload; may raise OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            return IncomingFolder(self.root / f"{INCOMING}{uuid.uuid4().hex}")

    def publish(self, folder: IncomingFolder, manifest: DatasetManifest) -> tuple[DatasetManifest, bool]:
        """Rename the folder to the dataset's name. Return the stored manifest, and whether it is the given `manifest`.

        If the same dataset exists already, the manifest of the existing one is returned. Raises ConflictError if a
        different dataset has this name; may raise OSError.
        """
        write_text(folder.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        flush(folder.path)
        target = self.root / manifest.name
        try:
            folder.path.rename(target)
        except OSError:
            if not self.has(manifest.name):
                raise
            return self._require_same(self.find(manifest.name), manifest), False
        flush(self.root)
        return manifest, True

    def delete(self, name: str) -> None:
        """Delete a dataset and its token caches; may raise NotFoundError or StorageError."""
        self.discard(self.detach(name))

    def detach(self, name: str) -> list[Path]:
        """Rename a dataset and its token caches so that readers no longer find them: the quick part of `delete`.

        Returns the paths that `discard` has to remove.
        """
        folder = self.root / check_name(name, location="path.name")
        detached = self.root / f"{DELETED}{uuid.uuid4().hex}"
        with storage_errors(folder):
            try:
                folder.rename(detached)
            except FileNotFoundError:
                raise NotFoundError(f"there is no dataset {name!r}") from None
            flush(self.root)
        return [detached, *self._detach_caches(name)]

    def move_aside(self, name: str, aside: Path) -> None:
        """Move a dataset, if there is one, into the folder `aside` and delete its token caches; may raise OSError."""
        folder = self.root / check_name(name)
        if not folder.exists() and not folder.is_symlink():
            return
        aside.mkdir(parents=True, exist_ok=True)
        folder.rename(aside / name)
        flush(self.root)
        self.discard(self._detach_caches(name))

    @staticmethod
    def discard(detached: Iterable[Path]) -> None:
        """Remove the folders that `detach` renamed: the slow part of `delete`."""
        for path in detached:
            shutil.rmtree(path, ignore_errors=True)

    def remove_abandoned(self) -> int:
        """Remove deleted datasets and the uploads of processes that have died; return the number of removed folders.

        It is safe to call while other processes upload and delete.
        """
        if not self.root.is_dir():
            return 0
        removed = 0
        with self._locked():
            for path in list(self.root.iterdir()):
                if path.name.startswith((INCOMING, DELETED)) and _is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
        return removed

    def remove_abandoned_caches(self) -> int:
        """Delete unfinished token caches of dead processes, but keep caches that are being built.

        Returns the number of deleted caches.
        """
        removed = 0
        for path in list((self.data_dir / CACHE).glob(".*.tmp")):
            name = path.name[1:].rsplit(".", 2)[0]
            try:
                with path.with_name(f"{name}.lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the builder holds the lock while it runs
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
            except OSError:
                continue
        return removed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let only one process at a time create folders or remove abandoned ones.

        Otherwise `remove_abandoned` could remove a new folder before its creator has locked it.
        """
        with (self.root / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _detach_caches(self, name: str) -> list[Path]:
        """Rename the token caches of a dataset so that no reader finds them, and return the new paths."""
        detached = []
        for cache in list(self._caches(name)):
            # If this process dies before `discard`, the next process that builds this cache deletes the renamed folder.
            temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex[:8]}.tmp")
            with suppress(OSError):
                cache.rename(temporary)
                detached.append(temporary)
        return detached

    def _caches(self, name: str) -> Iterator[Path]:
        for header in (self.data_dir / CACHE).glob("*/header.json"):
            try:
                data = json.loads(header.read_bytes())["data"]
                corpora = data if isinstance(data, list) else [data]  # a vocabulary may be of several corpora
                if any(name in (each["source"], each["validation_source"]) for each in corpora):
                    yield header.parent
            except (OSError, ValueError, KeyError, TypeError):
                continue

    @staticmethod
    def _require_same(existing: DatasetManifest, new: DatasetManifest) -> DatasetManifest:
        if existing.sha256 != new.sha256:
            raise ConflictError(
                f"there is another dataset {new.name!r} (its SHA-256 is {existing.sha256[:12]}…, not "
                f"{new.sha256[:12]}…); "
                "delete it first, or choose another name"
            )
        if (existing.format, existing.text_field) != (new.format, new.text_field):
            raise ConflictError(
                f"dataset {new.name!r} already exists with this content, but in the format {existing.format} and with "
                f"the text in '{existing.text_field}'; delete it first, or choose another name"
            )
        return existing


def _is_abandoned(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
