"""The artifact store: a folder with one folder of files per experiment. References such as `<id>/best` name files in
it.

A reference is `experiments/<id>/<file>` or `<id>/<file>`; `<id>/best`, `<id>/latest` and `<id>/final` refer to
checkpoints of the experiment. Files outside the store are never read or written: absolute paths, `..` and symbolic
links that lead out of it are rejected. Names are POSIX paths relative to the experiment's folder. Object stores are not
supported. `common.checkpoint` reads and writes checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.artifacts.best import read_best
from common.errors import InvalidInputError, NotFoundError, StorageError
from common.files import parse_json, path_problem, shortened

ALIASES = ("best", "latest", "final")
ALIAS_TRIES = 5
"""Largest number of attempts to resolve an alias. An attempt fails if a training deletes the
checkpoint during the attempt."""
_EXPERIMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MODEL_SUFFIXES = (".safetensors", ".pth")
_POLICY_PREFIX = "rl_checkpoint"
_PARTIAL_PREFIX = ".partial-"
_UNFINISHED_PREFIX = ".tmp-"
"""Prefix of the folders of checkpoints that are being written."""


@dataclass(frozen=True)
class ArtifactFile:
    """A file of an experiment; `name` is relative to the experiment's folder."""

    name: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class CheckpointFile:
    """A file with a final model or policy, or a checkpoint folder with a manifest.

    `kind` is "final" or "step". `policy` is true for controllers and false for language models. `best` is true for the
    checkpoint that `best.json` names.
    """

    name: str
    kind: str
    policy: bool
    size_bytes: int
    modified_at: datetime
    best: bool = False


class ArtifactStore:
    """The experiments in the local folder `root`. The first write creates the folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()

    def experiment(self, experiment_id: str) -> Path:
        """Return the folder of an experiment, whether or not it exists; raise InvalidInputError for an invalid id."""
        if not _EXPERIMENT_ID.fullmatch(experiment_id):
            raise InvalidInputError(
                f"{shortened(experiment_id)} is not an experiment id (up to 200 letters, digits, '.', '_', '-')"
            )
        return self._inside(self.root / experiment_id, experiment_id)

    def path(self, experiment_id: str, name: str) -> Path:
        """Return the path of a file, whether or not it exists; raise InvalidInputError for an invalid id or name."""
        folder = self.experiment(experiment_id)
        parts = name.split("/")
        if problem := path_problem(name):
            raise InvalidInputError(f"the name {shortened(name)} {problem}")
        if "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise InvalidInputError(f"{name!r} is not the name of an experiment's file; use a plain relative path")
        return self._inside(folder.joinpath(*parts), f"{experiment_id}/{name}", within=folder)

    def resolve(self, reference: str) -> Path:
        """Return the path of the existing file or checkpoint folder that `reference` names.

        Raises InvalidInputError if the reference is malformed or leads out of the store, NotFoundError if the file or
        folder does not exist.
        """
        experiment_id, name = split_reference(reference)
        folder = self.experiment(experiment_id)
        if not folder.is_dir():
            raise NotFoundError(f"there is no experiment {experiment_id!r}")
        path = self.path(experiment_id, name)
        for _ in range(ALIAS_TRIES if name in ALIASES else 0):
            if path.exists():
                break
            path = self.path(experiment_id, self._resolve_alias(experiment_id, name))
        if not path.exists():
            known = ", ".join(file.name for file in self.checkpoint_files(experiment_id)) or "none yet"
            raise NotFoundError(f"experiment {experiment_id!r} has no file {name!r}; its checkpoints: {known}")
        return path

    def reference(self, path: Path) -> str:
        """Return the reference `<id>/<name>` of a path inside the store."""
        return self._inside(path, str(path)).relative_to(self.root.resolve()).as_posix()

    def write_atomic(self, experiment_id: str, name: str, data: bytes) -> Path:
        """Write a file atomically and flush it to the disk; raise StorageError if it cannot be written."""
        path = self.path(experiment_id, name)
        partial = path.with_name(f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StorageError(f"{experiment_id}/{name} could not be written: {error}") from error
        return path

    def write_json(self, experiment_id: str, name: str, value: Any) -> Path:
        """Write `value` as indented JSON with `write_atomic`; raise ValueError for NaN or infinity."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_atomic(experiment_id, name, text.encode() + b"\n")

    def read_json(self, experiment_id: str, name: str) -> Any:
        """Return the value in a JSON file; raise NotFoundError if it is missing, StorageError if it is not JSON.

        NaN and infinity are read as None, because the api can send neither.
        """
        try:
            return parse_json(self.path(experiment_id, name).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"experiment {experiment_id!r} has no {name}") from None
        except (OSError, ValueError) as error:
            raise StorageError(f"{experiment_id}/{name} cannot be read: {error}") from error

    def experiments(self) -> list[str]:
        """Return the ids of all experiments in reverse alphabetical order, which puts the newest first."""
        if not self.root.is_dir():
            return []
        found = (path.name for path in self.root.iterdir() if path.is_dir())
        return sorted((name for name in found if _EXPERIMENT_ID.fullmatch(name)), reverse=True)

    def files(self, experiment_id: str) -> list[ArtifactFile]:
        """Return all complete files of an experiment, sorted by name; symbolic links are ignored."""
        folder = self.experiment(experiment_id)
        return sorted(_existing(_walk(folder), folder), key=lambda file: file.name)

    def checkpoint_files(self, experiment_id: str) -> list[CheckpointFile]:
        """Return the files of final models and policies, then the checkpoint folders with a manifest, newest first.

        Files that are deleted while this method runs, for example because a training prunes checkpoints, are omitted.
        """
        folder = self.experiment(experiment_id)
        found: list[CheckpointFile] = []
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix in _MODEL_SUFFIXES and path.is_file() and not path.is_symlink():
                policy = path.name.startswith(_POLICY_PREFIX)
                for file in _existing([path], folder):
                    found.append(CheckpointFile(file.name, "final", policy, file.size_bytes, file.modified_at))
        for manifest in sorted(folder.glob("checkpoints/*/manifest.json"), reverse=True):
            step = manifest.parent
            if step.is_symlink() or step.name.startswith("."):
                continue
            size = sum(file.size_bytes for file in _existing(_walk(step), folder))
            policy = step.name.startswith("iter")
            # A deletion removes the manifest first, so the size is complete if the manifest still exists.
            for file in _existing([manifest], folder):
                found.append(CheckpointFile(f"checkpoints/{step.name}", "step", policy, size, file.modified_at))
        best = read_best(folder / "checkpoints")
        return [replace(item, best=best is not None and item.name == best.name) for item in found]

    def delete(self, experiment_id: str) -> None:
        """Delete an experiment with all its files; raise NotFoundError if it does not exist."""
        folder = self.experiment(experiment_id)
        if not folder.is_dir():
            raise NotFoundError(f"there is no experiment {experiment_id!r}")
        # Rename the folder first, so that an interrupted deletion leaves no experiment that looks complete.
        detached = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        folder.replace(detached)
        shutil.rmtree(detached, ignore_errors=True)

    def detach(self, experiment_id: str, name: str) -> Path | None:
        """Rename a folder so that readers no longer find it, and return the new path, for use with `discard`.

        Returns None if the folder does not exist.
        """
        path = self.path(experiment_id, name)
        detached = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        try:
            path.replace(detached)
        except FileNotFoundError:
            return None
        return detached

    def discard(self, detached: Path | None) -> None:
        """Delete the folder that `detach` returned."""
        if detached is not None:
            shutil.rmtree(detached, ignore_errors=True)

    def discard_leftovers(self, older_than_seconds: float) -> int:
        """Delete folders that a killed process detached but did not delete, and return their number.

        Only folders that were detached more than `older_than_seconds` ago are deleted.
        """
        found = [path for path in self.root.glob(f"{_PARTIAL_PREFIX}*") if path.is_dir() and not path.is_symlink()]
        old = [path for path in found if time.time() - path.lstat().st_ctime > older_than_seconds]
        for path in old:
            self.discard(path)
        return len(old)

    def discard_unfinished(self, older_than_seconds: float) -> int:
        """Delete unfinished checkpoints that have not changed for `older_than_seconds`; return their number."""
        count = 0
        for path in self.root.glob(f"*/checkpoints/{_UNFINISHED_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # another process may move or delete the folder
                if path.is_dir() and time.time() - _touched_at(path) > older_than_seconds:
                    self.discard(path)
                    count += 1
        return count

    def delete_checkpoint(self, experiment_id: str, name: str) -> None:
        """Delete a checkpoint that `checkpoint_files` lists; raise NotFoundError if it does not exist."""
        path = self.path(experiment_id, name)
        if not path.exists():
            raise NotFoundError(f"there is no checkpoint {experiment_id}/{name}")
        detached = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        path.replace(detached)
        if detached.is_dir():
            shutil.rmtree(detached, ignore_errors=True)
        else:
            detached.unlink(missing_ok=True)

    def _resolve_alias(self, experiment_id: str, alias: str) -> str:
        files = self.checkpoint_files(experiment_id)
        finals = sorted((file.name for file in files if file.kind == "final"), key=_preference)
        steps = [file.name for file in files if file.kind == "step"]
        best = [file.name for file in files if file.best] + [name for name in finals if "best" in name]
        choices = {"best": best + finals + steps, "latest": steps + finals, "final": finals}[alias]
        if not choices:
            raise NotFoundError(f"experiment {experiment_id!r} has no {alias} checkpoint")
        return choices[0]

    def _inside(self, path: Path, shown: str, *, within: Path | None = None) -> Path:
        resolved = path.resolve()
        root = (within or self.root).resolve()
        if not resolved.is_relative_to(root) or resolved == self.root.resolve():
            raise InvalidInputError(f"{shown!r} is outside the artifact store; use a path inside it")
        return resolved


def split_reference(reference: str) -> tuple[str, str]:
    """Return (experiment id, name) of a reference; raise InvalidInputError if `reference` is malformed."""
    parts = reference.split("/")
    if len(parts) > 2 and parts[0] == "experiments":
        parts = parts[1:]
    if len(parts) < 2 or not all(parts):
        raise InvalidInputError(
            f"{shortened(reference)} is not a checkpoint reference; write <experiment id>/<file>, "
            f"or {', '.join(f'<experiment id>/{alias}' for alias in ALIASES)}"
        )
    return parts[0], "/".join(parts[1:])


def _preference(name: str) -> tuple[bool, bool, str]:
    # Prefer .safetensors, whose manifest records whether the gates were trained, to a .pth file, which is an export.
    return ("final" not in name, not name.endswith(".safetensors"), name)


def _touched_at(folder: Path) -> float:
    """Return the latest modification time of the folder and its files (Unix seconds)."""
    times = [folder.lstat().st_mtime]
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            times.append(path.lstat().st_mtime)
    return max(times)


def _describe(path: Path, folder: Path) -> ArtifactFile:
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return ArtifactFile(path.relative_to(folder).as_posix(), stat.st_size, modified)


def _existing(paths: Iterable[Path], folder: Path) -> Iterator[ArtifactFile]:
    """Yield descriptions of the files in `paths` that still exist."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            yield _describe(path, folder)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if not name.startswith(_PARTIAL_PREFIX) and path.is_file() and not path.is_symlink():
                yield path


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
