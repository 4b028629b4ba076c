"""Manages the checkpoints in one folder: writes them atomically, verifies them before use and removes old ones.

A checkpoint is a folder such as `step-000000123` with `weights.safetensors`, `training_state.pt` (optimiser, schedules
and random states; read with weights_only), `tokenizer.json` if the model has a vocabulary of its own, and
`manifest.json`, which has the SHA-256 of each file. The folder is written
under a temporary name, flushed to the disk and renamed. Weights or optimiser state with NaN or infinity are not
written, and checkpoints whose weights have NaN or infinity are not used. `common.training` and `common.rl` define what
the training state contains.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.artifacts.best import BestCheckpoint, read_best, write_best
from common.checkpoint.files import load_tensors, safe_load, write_object, write_tensors
from common.checkpoint.finite import require_finite_state, require_usable
from common.checkpoint.retention import CheckpointRetention
from common.checkpoint.snapshot import tensor_bytes
from common.checkpoint.vocabulary_file import save_vocabulary, vocabulary_meta
from common.data.vocabulary import VOCABULARY_FILE, Vocabulary
from common.errors import CheckpointError
from common.files import flush, require_space, sha256_of, storage_errors, write_json

WEIGHTS = "weights.safetensors"
STATE = "training_state.pt"
MANIFEST = "manifest.json"
FORMAT = 1
ABANDONED_SECONDS = 3600.0
"""Age in seconds from which a temporary folder is removed, because the process that wrote it must have died."""
WITHDRAWN = "withdrawn"
"""Name of a marker file in the folder of the best checkpoint. It means that training diverged after this checkpoint:
the model is usable, but no training resumes from this checkpoint automatically."""
DAMAGED_PREFIX = ".damaged-"
"""Prefix that is added to the name of a checkpoint folder if it is damaged or training diverged after it."""


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint, as described by its manifest."""

    name: str
    path: Path
    step: int
    created_at: datetime
    """Time of the write, in UTC."""
    sha256: str
    """SHA-256 of weights.safetensors."""
    size_bytes: int
    """Total size of all files in bytes, without the manifest."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Kind of the checkpoint ("lm" or "rl"), configuration of the model, and other values that describe it."""


@dataclass(frozen=True)
class SkippedCheckpoint:
    """A checkpoint folder that `latest` skipped because it is damaged or has weights that are not finite."""

    name: str
    reason: str


class CheckpointManager:
    """The checkpoints of one experiment. Only one process at a time may write; all may read at any time."""

    def __init__(self, directory: Path, *, keep_last: int, keep_every: int | None = None, prefix: str = "step") -> None:
        self.directory = Path(directory)
        self.retention = CheckpointRetention(keep_last, keep_every)
        self.prefix = prefix
        self.skipped: list[SkippedCheckpoint] = []
        """Folders that the last call of `latest` skipped."""
        self._pattern = re.compile(rf"^{re.escape(prefix)}-(\d{{9,}})(?:\.(\d+))?$")

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        vocabulary: Vocabulary | None = None,
        before_publish: Callable[[], None] | None = None,
    ) -> CheckpointInfo:
        """Write a checkpoint. When all its files are complete, call `before_publish`, then rename the folder.

        `vocabulary` is the language model's; it is stored unless it is GPT-2's. None means that there is none to store.

        Raises StorageError if a write fails; incomplete files are then removed, and older checkpoints are unchanged.
        Raises DivergedError if the weights or `state["optimizer"]` are not finite, and TypeError if `state` contains a
        value that torch.load with weights_only could not read.
        """
        if step < 0:
            raise ValueError(f"step is {step}; it must be at least 0")
        require_finite_state(weights, state.get("optimizer"))
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            require_space(self.directory, tensor_bytes(weights))
            temporary = self.directory / f".tmp-{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                self._write(temporary, step, weights, state, meta, vocabulary)
                if before_publish is not None:
                    before_publish()
                target = self._unused_path(step)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            flush(self.directory)
        return read_info(target)

    def prune(self) -> Sequence[str]:
        """Remove the checkpoints that `retention` does not keep; return the remaining names, oldest first.

        Raises StorageError.
        """
        with storage_errors(self.directory):
            best = read_best(self.directory)
            found = [(self._number(info.path), info.name) for info in self.list()]
            kept = self.retention.names_to_keep(found, None if best is None else Path(best.name).name)
            if not kept:
                return []
            oldest = self._number(self.directory / kept[0])
            removed = {name for _, name in found} - set(kept)
            # Also remove incomplete folders that are older than every kept checkpoint.
            removed |= {path.name for path in self._folders() if self._number(path) < oldest}
            for name in removed:
                # Remove the manifest first, so that no training resumes from a partly removed folder.
                (self.directory / name / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(self.directory / name, ignore_errors=True)
            for path in self.directory.glob(f"{DAMAGED_PREFIX}*"):
                if self._number(path) < oldest:
                    shutil.rmtree(path, ignore_errors=True)
            return kept

    def names(self) -> Sequence[str]:
        """Return the names of the checkpoints that `list` returns, oldest first."""
        return [info.name for info in self.list()]

    def withdraw(self, number: int) -> Sequence[str]:
        """Rename the checkpoints whose number is at least `number`; return the old names of those that were renamed.

        Called when training has diverged after these checkpoints. If the best checkpoint so far is one of them, it gets
        a marker file and keeps its name: its model is usable, but no training may resume from it.
        """
        best = read_best(self.directory)
        best_name = None if best is None else Path(best.name).name
        withdrawn = [path for path in self._folders() if self._number(path) >= number]
        for path in withdrawn:
            if path.name == best_name:
                with contextlib.suppress(OSError):
                    (path / WITHDRAWN).touch()
            else:
                self.rename_damaged(SkippedCheckpoint(path.name, "training diverged after this checkpoint"))
        return [path.name for path in withdrawn if path.name != best_name]

    def record_best(self, best: BestCheckpoint) -> None:
        """Record the best checkpoint so far in `best.json`. Raises StorageError."""
        write_best(self.directory, best)

    def rename_damaged(self, skipped: SkippedCheckpoint) -> None:
        """Rename a folder, so that it is not used and the retention does not count it. OSErrors are ignored."""
        with contextlib.suppress(OSError):
            (self.directory / skipped.name).rename(self.directory / f"{DAMAGED_PREFIX}{skipped.name}")

    def list(self) -> Sequence[CheckpointInfo]:
        """Return all checkpoints whose manifest is readable and whose files have the right size, oldest first."""
        found = []
        for path in self._folders():
            try:
                found.append(read_info(path))
            except CheckpointError:
                continue
        return found

    def latest(self, *, before: int | None = None) -> CheckpointInfo | None:
        """Return the newest intact checkpoint after which training has not diverged, or None.

        With `before`, consider only checkpoints whose number is smaller than `before`. Afterwards, `skipped` lists the
        folders that are newer than the result but are damaged or have weights that are not finite.
        """
        self.skipped = []
        for path in reversed(self._folders()):
            if (path / WITHDRAWN).exists() or (before is not None and self._number(path) >= before):
                continue
            try:
                info = read_info(path)
                verify(path)
            except CheckpointError as error:
                self.skipped.append(SkippedCheckpoint(path.name, error.message))
                continue
            return info
        return None

    def load(
        self, info: CheckpointInfo, map_location: torch.device | str = "cpu"
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return weights and training state of a checkpoint. Raises CheckpointError if the checkpoint is damaged."""
        weights, _ = load_tensors(info.path / WEIGHTS, device=map_location)
        state = safe_load(info.path / STATE, map_location=map_location)
        if not isinstance(state, dict):
            raise CheckpointError(f"{info.path / STATE}: expected a mapping, found {type(state).__name__}")
        return weights, state

    def _write(
        self,
        folder: Path,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        meta: Mapping[str, Any],
        vocabulary: Vocabulary | None,
    ) -> None:
        names = [WEIGHTS, STATE]
        if vocabulary is not None and not vocabulary.is_gpt2:
            names.append(VOCABULARY_FILE)
            meta = {**meta, **vocabulary_meta(vocabulary)}
            save_vocabulary(vocabulary, folder)
        write_tensors(folder / WEIGHTS, weights, meta)
        write_object(folder / STATE, dict(state))
        files = {
            name: {"sha256": sha256_of(folder / name), "size_bytes": (folder / name).stat().st_size} for name in names
        }
        created_at = datetime.now(UTC)
        manifest = {
            "format": FORMAT,
            "step": step,
            "created_at": created_at.isoformat(),
            "files": files,
            "meta": dict(meta),
        }
        write_json(folder / MANIFEST, manifest)
        flush(folder)

    def _unused_path(self, step: int) -> Path:
        # The same step may be written twice, for example by a pause right after a periodic checkpoint. The second
        # folder gets a suffix, because an existing folder is never replaced.
        target, revision = self.directory / f"{self.prefix}-{step:09d}", 0
        while target.exists():
            revision += 1
            target = self.directory / f"{self.prefix}-{step:09d}.{revision}"
        return target

    def _folders(self) -> Sequence[Path]:
        if not self.directory.is_dir():
            return []
        numbered = []
        for path in self.directory.iterdir():
            match = self._pattern.match(path.name)
            if match and path.is_dir():
                numbered.append((int(match[1]), int(match[2] or 0), path))
        return [path for _, _, path in sorted(numbered)]

    def _number(self, path: Path) -> int:
        match = self._pattern.match(path.name.removeprefix(DAMAGED_PREFIX))
        return int(match[1]) if match else -1

    def _remove_abandoned(self) -> None:
        for path in self.directory.glob(".tmp-*"):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def read_info(path: Path) -> CheckpointInfo:
    """Return the checkpoint that the manifest of a folder describes.

    Raises CheckpointError if the manifest or a file is missing or truncated.
    """
    manifest = _manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        with _reading(file):
            complete = file.is_file() and file.stat().st_size == entry["size_bytes"]
        if not complete:
            raise CheckpointError(f"{file}: missing or not {entry['size_bytes']} bytes long")
    return CheckpointInfo(
        name=path.name,
        path=path,
        step=int(manifest["step"]),
        created_at=datetime.fromisoformat(manifest["created_at"]),
        sha256=manifest["files"][WEIGHTS]["sha256"],
        size_bytes=sum(entry["size_bytes"] for entry in manifest["files"].values()),
        meta=manifest["meta"],
    )


def verify(path: Path) -> None:
    """Raise CheckpointError if a file is unreadable or does not match its SHA-256, or weights are not finite."""
    for name, entry in _manifest(path)["files"].items():
        with _reading(path / name):
            digest = sha256_of(path / name)
        if digest != entry["sha256"]:
            raise CheckpointError(f"{path / name}: its SHA-256 differs from the manifest; the file is damaged")
    require_usable(load_tensors(path / WEIGHTS)[0], str(path))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Verify a checkpoint folder and return its weights and metadata, without the training state."""
    info = read_info(path)
    verify(path)
    weights, _ = load_tensors(path / WEIGHTS)
    return weights, info.meta


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Convert errors of the operating system to CheckpointError, so that an unreadable checkpoint is skipped."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        valid = (
            manifest["format"] == FORMAT
            and isinstance(manifest["meta"], dict)
            and isinstance(manifest["created_at"], str)
            and isinstance(manifest["step"], int)
            and {WEIGHTS, STATE} <= set(manifest["files"]) <= {WEIGHTS, STATE, VOCABULARY_FILE}
            and all(isinstance(entry["size_bytes"], int) for entry in manifest["files"].values())
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not a checkpoint folder (it has no {MANIFEST})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: the manifest cannot be read ({error})") from error
    if not valid:
        raise CheckpointError(f"{file}: not a valid manifest of format {FORMAT}")
    return dict(manifest)
