"""The artifact store: one folder per experiment, names instead of paths, whole files or none.

A reference is `experiments/<id>/<file>` or `<id>/<file>`; `<id>/best`, `<id>/latest` and `<id>/final` name what the
experiment has. Nothing outside the root is ever read or written: absolute paths, `..` and symlinks that lead out are
refused. Names are POSIX paths relative to the experiment, the keys an object store would use. Leaves out: S3, the
content of checkpoints (`common.checkpoint`).
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
"""A training may remove the very checkpoint that an alias was found to name."""
_EXPERIMENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MODEL_SUFFIXES = (".safetensors", ".pth")
_POLICY_PREFIX = "rl_checkpoint"
_PARTIAL_PREFIX = ".partial-"
_UNFINISHED_PREFIX = ".tmp-"
"""Prefix of the folders of checkpoints that are being written."""


@dataclass(frozen=True)
class ArtifactFile:
    """A file of an experiment; `name` is relative to its folder."""

    name: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class CheckpointFile:
    """Something a model or policy can be loaded from: a final file or a checkpoint folder with a manifest.

    `kind` is "final" or "step"; `policy` tells controllers from language models; `best` is what its training measured
    to be the best so far.
    """

    name: str
    kind: str
    policy: bool
    size_bytes: int
    modified_at: datetime
    best: bool = False


class ArtifactStore:
    """The experiments below `root`, a local folder that need not exist yet."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()

    def experiment(self, experiment_id: str) -> Path:
        """Folder of an experiment, whether it exists or not; InvalidInputError for an id that is no id."""
        if not _EXPERIMENT_ID.fullmatch(experiment_id):
            raise InvalidInputError(
                f"{shortened(experiment_id)} is not an experiment id (up to 200 letters, digits, '.', '_', '-')"
            )
        return self._inside(self.root / experiment_id, experiment_id)

    def path(self, experiment_id: str, name: str) -> Path:
        """Path of a file of an experiment, whether it exists or not; InvalidInputError when it would lie outside."""
        folder = self.experiment(experiment_id)
        parts = name.split("/")
        if problem := path_problem(name):
            raise InvalidInputError(f"the name {shortened(name)} {problem}")
        if "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise InvalidInputError(f"{name!r} is not a name in an experiment; use a plain relative path")
        return self._inside(folder.joinpath(*parts), f"{experiment_id}/{name}", within=folder)

    def resolve(self, reference: str) -> Path:
        """The existing file or checkpoint folder that `reference` names.

        Raises InvalidInputError for a malformed reference or one that leads out of the store, NotFoundError.
        """
        experiment_id, name = split_reference(reference)
        folder = self.experiment(experiment_id)
        if not folder.is_dir():
            raise NotFoundError(f"there is no experiment {experiment_id!r}")
        path = self.path(experiment_id, name)
        for _ in range(ALIAS_TRIES if name in ALIASES else 0):
            if path.exists():
                break
            path = self.path(experiment_id, self._alias(experiment_id, name))
        if not path.exists():
            known = ", ".join(file.name for file in self.checkpoint_files(experiment_id)) or "none yet"
            raise NotFoundError(f"experiment {experiment_id!r} has no file {name!r}; its checkpoints: {known}")
        return path

    def reference(self, path: Path) -> str:
        """`<id>/<name>` of a path inside the store."""
        return self._inside(path, str(path)).relative_to(self.root.resolve()).as_posix()

    def write_atomic(self, experiment_id: str, name: str, data: bytes) -> Path:
        """Write a file whole or not at all, on disk when this returns; StorageError when the disk takes it not."""
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
        """Like `write_atomic`, `value` as indented JSON; ValueError for NaN or infinity."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_atomic(experiment_id, name, text.encode() + b"\n")

    def read_json(self, experiment_id: str, name: str) -> Any:
        """The value in a JSON file; NotFoundError when it is missing, StorageError when it is no JSON.

        NaN and infinity are read as None, because the api can send neither.
        """
        try:
            return parse_json(self.path(experiment_id, name).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"experiment {experiment_id!r} has no {name}") from None
        except (OSError, ValueError) as error:
            raise StorageError(f"{experiment_id}/{name} cannot be read: {error}") from error

    def experiments(self) -> list[str]:
        """Ids of the experiments that have a folder, newest name first."""
        if not self.root.is_dir():
            return []
        found = (path.name for path in self.root.iterdir() if path.is_dir())
        return sorted((name for name in found if _EXPERIMENT_ID.fullmatch(name)), reverse=True)

    def files(self, experiment_id: str) -> list[ArtifactFile]:
        """All whole files of an experiment by name; symlinks are not followed."""
        folder = self.experiment(experiment_id)
        return sorted(_still_there(_walk(folder), folder), key=lambda file: file.name)

    def checkpoint_files(self, experiment_id: str) -> list[CheckpointFile]:
        """What can be loaded: final files first, then checkpoint folders with a manifest, the newest step first.

        What is removed meanwhile, as by a training that prunes, is left out.
        """
        folder = self.experiment(experiment_id)
        found: list[CheckpointFile] = []
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix in _MODEL_SUFFIXES and path.is_file() and not path.is_symlink():
                policy = path.name.startswith(_POLICY_PREFIX)
                for about in _still_there([path], folder):
                    found.append(CheckpointFile(about.name, "final", policy, about.size_bytes, about.modified_at))
        for manifest in sorted(folder.glob("checkpoints/*/manifest.json"), reverse=True):
            step = manifest.parent
            if step.is_symlink() or step.name.startswith("."):
                continue
            size = sum(about.size_bytes for about in _still_there(_walk(step), folder))
            policy = step.name.startswith("iter")
            # The manifest goes first, so where it is left the size is that of the whole.
            for about in _still_there([manifest], folder):
                found.append(CheckpointFile(f"checkpoints/{step.name}", "step", policy, size, about.modified_at))
        best = read_best(folder / "checkpoints")
        return [replace(file, best=best is not None and file.name == best.name) for file in found]

    def delete(self, experiment_id: str) -> None:
        """Remove an experiment with all files; NotFoundError when there is none."""
        folder = self.experiment(experiment_id)
        if not folder.is_dir():
            raise NotFoundError(f"there is no experiment {experiment_id!r}")
        # Renamed first, so that an interrupted removal leaves no experiment that looks whole.
        doomed = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        folder.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def take_away(self, experiment_id: str, name: str) -> Path | None:
        """Rename a folder of an experiment out of sight, for `discard`; None when there is none."""
        path = self.path(experiment_id, name)
        doomed = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        try:
            path.replace(doomed)
        except FileNotFoundError:
            return None
        return doomed

    def discard(self, doomed: Path | None) -> None:
        """Free the bytes of what `take_away` gave."""
        if doomed is not None:
            shutil.rmtree(doomed, ignore_errors=True)

    def discard_leftovers(self, older_than_seconds: float) -> int:
        """Discard what a process that was killed had renamed out of sight, and not removed, so long ago; how many."""
        found = [path for path in self.root.glob(f"{_PARTIAL_PREFIX}*") if path.is_dir() and not path.is_symlink()]
        old = [path for path in found if time.time() - path.lstat().st_ctime > older_than_seconds]
        for path in old:
            self.discard(path)
        return len(old)

    def discard_unfinished(self, older_than_seconds: float) -> int:
        """Delete unfinished checkpoints that have not changed for `older_than_seconds`; return how many."""
        count = 0
        for path in self.root.glob(f"*/checkpoints/{_UNFINISHED_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # the checkpoint was finished or deleted since it was listed
                if path.is_dir() and time.time() - _touched_at(path) > older_than_seconds:
                    self.discard(path)
                    count += 1
        return count

    def delete_checkpoint(self, experiment_id: str, name: str) -> None:
        """Remove a checkpoint of `checkpoint_files`, a file or a folder; NotFoundError when there is none."""
        path = self.path(experiment_id, name)
        if not path.exists():
            raise NotFoundError(f"there is no checkpoint {experiment_id}/{name}")
        doomed = self.root / f"{_PARTIAL_PREFIX}{uuid.uuid4().hex}"
        path.replace(doomed)
        if doomed.is_dir():
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            doomed.unlink(missing_ok=True)

    def _alias(self, experiment_id: str, alias: str) -> str:
        files = self.checkpoint_files(experiment_id)
        finals = sorted((f.name for f in files if f.kind == "final"), key=_preference)
        steps = [f.name for f in files if f.kind == "step"]
        best = [file.name for file in files if file.best] + [name for name in finals if "best" in name]
        choices = {"best": best + finals + steps, "latest": steps + finals, "final": finals}[alias]
        if not choices:
            raise NotFoundError(f"experiment {experiment_id!r} has no {alias} checkpoint")
        return choices[0]

    def _inside(self, path: Path, shown: str, *, within: Path | None = None) -> Path:
        resolved = path.resolve()
        root = (within or self.root).resolve()
        if not resolved.is_relative_to(root) or resolved == self.root.resolve():
            raise InvalidInputError(f"{shown!r} leads out of the artifact store")
        return resolved


def split_reference(reference: str) -> tuple[str, str]:
    """Experiment id and name of a checkpoint reference; InvalidInputError when it has another form."""
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
    # Our own safetensors carry a manifest (model shape, trained gates); raw .pth is for export.
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


def _still_there(paths: Iterable[Path], folder: Path) -> Iterator[ArtifactFile]:
    """Those of the files that nobody has removed meanwhile."""
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
