"""The datasets below a data folder: find, list, publish, delete, and tidy up after processes that died.

A dataset appears and disappears by one rename. Names that begin with a dot are uploads under way (`.incoming-…`) and
what is being deleted; their owner holds a lock on the folder, so `sweep` tells them from leftovers.
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

from common.datasets.manifest import MANIFEST_FILE, TOKENS_FILE, Manifest, TokenRecord
from common.datasets.names import check_name, is_dataset_name
from common.errors import ConflictError, NotFoundError
from common.files import flush, storage_errors, write_atomic, write_text

FOLDER = "datasets"
CACHE = "cache"
INCOMING = ".incoming-"
DELETED = ".deleted-"
LOCK = ".lock"


class IncomingFolder:
    """A folder that nobody sees yet, locked for as long as this object holds it."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._held = True

    def remove(self) -> None:
        """Let go of it; what was not published is removed."""
        if self._held:
            self._held = False
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)


class DatasetStore:
    """Datasets below `<data_dir>/datasets`, a local folder that need not exist yet."""

    def __init__(self, data_dir: Path | str) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.root = self.data_dir / FOLDER

    def names(self) -> list[str]:
        """All names, in order."""
        try:
            return sorted(path.name for path in self.root.iterdir() if self.has(path.name))
        except OSError:
            return []

    def has(self, name: str) -> bool:
        """Whether there is a dataset of this name."""
        return is_dataset_name(name) and (self.root / name / MANIFEST_FILE).is_file()

    def manifests(self) -> list[Manifest]:
        """All datasets, the newest first; a folder without a readable manifest is none."""
        found = []
        for name in self.names():
            with suppress(NotFoundError):
                found.append(self.find(name))
        return sorted(found, key=lambda manifest: (manifest.created_at, manifest.name), reverse=True)

    def find(self, name: str) -> Manifest:
        """The manifest; NotFoundError."""
        path = self.root / check_name(name, location="path.name") / MANIFEST_FILE
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"there is no dataset {name!r}") from None
        except (OSError, ValidationError) as error:
            raise NotFoundError(f"dataset {name!r}: {MANIFEST_FILE} cannot be read; upload it again") from error

    def text(self, manifest: Manifest) -> Path:
        """Where the text of a dataset lies."""
        return self.root / manifest.name / manifest.file

    def tokens(self, manifest: Manifest) -> TokenRecord | None:
        """What tokenising it gave; None before it was."""
        try:
            record = TokenRecord.model_validate_json((self.root / manifest.name / TOKENS_FILE).read_bytes())
        except (OSError, ValidationError):
            return None
        return record if record.sha256 == manifest.sha256 else None

    def record_tokens(self, name: str, record: TokenRecord) -> None:
        """Remember what tokenising gave; StorageError."""
        text = record.model_dump_json(indent=2) + "\n"
        write_atomic(self.root / name / TOKENS_FILE, lambda temporary: write_text(temporary, text))

    def incoming(self) -> IncomingFolder:
        """A new folder for an upload; OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._tidy():
            return IncomingFolder(self.root / f"{INCOMING}{uuid.uuid4().hex}")

    def publish(self, folder: IncomingFolder, manifest: Manifest) -> tuple[Manifest, bool]:
        """Give the folder its name. The manifest that counts, and whether it is this one; ConflictError, OSError."""
        write_text(folder.path / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        flush(folder.path)
        target = self.root / manifest.name
        try:
            folder.path.rename(target)
        except OSError:
            if not self.has(manifest.name):
                raise
            return self._same(self.find(manifest.name), manifest), False
        flush(self.root)
        return manifest, True

    def delete(self, name: str) -> None:
        """Remove a dataset, and the tokens that were made of it; NotFoundError, StorageError."""
        self.discard(self.detach(name))

    def detach(self, name: str) -> list[Path]:
        """The quick half of `delete`: nobody finds the dataset any more. What `discard` has to remove."""
        folder = self.root / check_name(name, location="path.name")
        gone = self.root / f"{DELETED}{uuid.uuid4().hex}"
        with storage_errors(folder):
            try:
                folder.rename(gone)
            except FileNotFoundError:
                raise NotFoundError(f"there is no dataset {name!r}") from None
            flush(self.root)
        return [gone, *self._detach_caches(name)]

    def put_aside(self, name: str, aside: Path) -> None:
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
        """The slow half of `delete`."""
        for path in detached:
            shutil.rmtree(path, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what died before it was whole; how many. Safe beside other processes."""
        if not self.root.is_dir():
            return 0
        removed = 0
        with self._tidy():
            for path in list(self.root.iterdir()):
                if path.name.startswith((INCOMING, DELETED)) and _is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)
                    removed += 1
        return removed

    def sweep_caches(self) -> int:
        """Delete unfinished token caches of builders that have died; return how many. Safe while other builders run."""
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
    def _tidy(self) -> Iterator[None]:
        """One process at a time makes folders or looks for abandoned ones, so none is seen before its lock."""
        with (self.root / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _detach_caches(self, name: str) -> list[Path]:
        """Rename the token caches of a dataset so that no reader finds them, and return the new paths."""
        detached = []
        for cache in list(self._caches(name)):
            # If this process dies before `discard`, the next builder of this cache deletes folders with such names.
            temporary = cache.with_name(f".{cache.name}.{uuid.uuid4().hex[:8]}.tmp")
            with suppress(OSError):
                cache.rename(temporary)
                detached.append(temporary)
        return detached

    def _caches(self, name: str) -> Iterator[Path]:
        for header in (self.data_dir / CACHE).glob("*/header.json"):
            try:
                data = json.loads(header.read_bytes())["data"]
                if name in (data["source"], data["validation_source"]):
                    yield header.parent
            except (OSError, ValueError, KeyError, TypeError):
                continue

    @staticmethod
    def _same(there: Manifest, new: Manifest) -> Manifest:
        if there.sha256 != new.sha256:
            raise ConflictError(
                f"there is another dataset {new.name!r} (SHA-256 {there.sha256[:12]}…, this is {new.sha256[:12]}…); "
                "delete it first, or choose another name"
            )
        if (there.format, there.text_field) != (new.format, new.text_field):
            raise ConflictError(
                f"dataset {new.name!r} has this content as {there.format} with the text in '{there.text_field}'; "
                "delete it first, or choose another name"
            )
        return there


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
