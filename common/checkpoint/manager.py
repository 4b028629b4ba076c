"""Training checkpoints in one directory: written whole or not at all, verified before they are trusted.

Weights and optimiser state that are not finite are not written, and a checkpoint that holds them is not resumed from.
`step-000000123/` holds `weights.safetensors`, `training_state.pt` (optimiser, schedules, random states; read with
weights_only) and `manifest.json` with the SHA-256 of both. Everything is written under a temporary name, flushed to
the disk and renamed. Leaves out what the state means: `common.training` and `common.rl` fill it.
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

from common.artifacts.best import Best, read_best, write_best
from common.checkpoint.files import load_tensors, safe_load, write_object, write_tensors
from common.checkpoint.finite import require_finite_state, require_usable
from common.checkpoint.retention import CheckpointRetention
from common.checkpoint.snapshot import tensor_bytes
from common.errors import CheckpointError
from common.files import flush, require_space, sha256_of, storage_errors, write_json

WEIGHTS = "weights.safetensors"
STATE = "training_state.pt"
MANIFEST = "manifest.json"
FORMAT = 1
ABANDONED_SECONDS = 3600.0
"""Temporary folders older than this belong to a writer that died."""
WITHDRAWN = "withdrawn"
"""A file in the folder of a checkpoint that is kept as the best and that no training goes on from by itself."""
DAMAGED_PREFIX = ".damaged-"
"""Goes before the name of a folder that did not verify."""


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint as its manifest describes it."""

    name: str
    path: Path
    step: int
    created_at: datetime
    """UTC."""
    sha256: str
    """Of weights.safetensors."""
    size_bytes: int
    """Of both files."""
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SkippedCheckpoint:
    """A folder that `latest` could not trust."""

    name: str
    reason: str


class CheckpointManager:
    """The checkpoints of one experiment. One writer at a time; readers may look at any moment."""

    def __init__(self, directory: Path, *, keep_last: int, keep_every: int | None = None, prefix: str = "step") -> None:
        self.directory = Path(directory)
        self.retention = CheckpointRetention(keep_last, keep_every)
        self.prefix = prefix
        self.skipped: list[SkippedCheckpoint] = []
        """What the last call of `latest` passed over."""
        self._pattern = re.compile(rf"^{re.escape(prefix)}-(\d{{9,}})(?:\.(\d+))?$")

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        meta: Mapping[str, Any],
        before_publish: Callable[[], None] | None = None,
    ) -> CheckpointInfo:
        """Write a checkpoint; `before_publish` is called when it is whole, right before the rename that shows it.

        Raises StorageError when the disk refuses (nothing half-written stays, older checkpoints are untouched),
        DivergedError when the weights or `state["optimizer"]` are not finite, TypeError when `state` holds anything
        that weights_only would not read back.
        """
        if step < 0:
            raise ValueError(f"step is {step}; it counts from 0")
        require_finite_state(weights, state.get("optimizer"))
        with storage_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            require_space(self.directory, tensor_bytes(weights))
            temporary = self.directory / f".tmp-{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                self._write(temporary, step, weights, state, meta)
                if before_publish is not None:
                    before_publish()
                target = self._free_name(step)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            flush(self.directory)
        return read_info(target)

    def prune(self) -> Sequence[str]:
        """Remove what `retention` does not keep; the names that are left, oldest first. Raises StorageError."""
        with storage_errors(self.directory):
            best = read_best(self.directory)
            found = [(self._number(info.path), info.name) for info in self.list()]
            kept = self.retention.kept(found, None if best is None else Path(best.name).name)
            if not kept:
                return []
            oldest = self._number(self.directory / kept[0])
            doomed = {name for _, name in found} - set(kept)
            # What does not even look whole goes when everything around it is gone.
            doomed |= {path.name for path in self._folders() if self._number(path) < oldest}
            for name in doomed:
                # Without its manifest a half-removed folder can never be resumed from.
                (self.directory / name / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(self.directory / name, ignore_errors=True)
            for path in self.directory.glob(f"{DAMAGED_PREFIX}*"):
                if self._number(path) < oldest:
                    shutil.rmtree(path, ignore_errors=True)
            return kept

    def names(self) -> Sequence[str]:
        """The names of all checkpoints that look whole, oldest first."""
        return [info.name for info in self.list()]

    def withdraw(self, number: int) -> Sequence[str]:
        """Set the checkpoints of `number` and later aside, because training cannot go on from them; their names.

        The best so far stays in its place, marked with a file: it is a sound model, though training diverged right
        after it.
        """
        best = read_best(self.directory)
        kept = None if best is None else Path(best.name).name
        doomed = [path for path in self._folders() if self._number(path) >= number]
        for path in doomed:
            if path.name == kept:
                with contextlib.suppress(OSError):
                    (path / WITHDRAWN).touch()
            else:
                self.set_aside(SkippedCheckpoint(path.name, "training diverged from here"))
        return [path.name for path in doomed if path.name != kept]

    def name_best(self, best: Best) -> None:
        """Note which is the best so far, `best.name` relative to the experiment's folder. Raises StorageError."""
        write_best(self.directory, best)

    def set_aside(self, skipped: SkippedCheckpoint) -> None:
        """Rename a folder that did not verify, so that it is neither resumed from nor counted. Best effort."""
        with contextlib.suppress(OSError):
            (self.directory / skipped.name).rename(self.directory / f"{DAMAGED_PREFIX}{skipped.name}")

    def list(self) -> Sequence[CheckpointInfo]:
        """All checkpoints with a readable manifest and files of the right size, oldest first; no hash is computed."""
        found = []
        for path in self._folders():
            try:
                found.append(read_info(path))
            except CheckpointError:
                continue
        return found

    def latest(self, *, before: int | None = None) -> CheckpointInfo | None:
        """The newest checkpoint that verifies and was not withdrawn, None without.

        With `before` only those of smaller numbers. Newer ones that are damaged or not finite are in `skipped`.
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
        """Weights and state of a checkpoint; CheckpointError when it is damaged."""
        weights, _ = load_tensors(info.path / WEIGHTS, device=map_location)
        state = safe_load(info.path / STATE, map_location=map_location)
        if not isinstance(state, dict):
            raise CheckpointError(f"{info.path / STATE}: expected a mapping, found {type(state).__name__}")
        return weights, state

    def _write(
        self, folder: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        write_tensors(folder / WEIGHTS, weights, meta)
        write_object(folder / STATE, dict(state))
        files = {
            name: {"sha256": sha256_of(folder / name), "size_bytes": (folder / name).stat().st_size}
            for name in (WEIGHTS, STATE)
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

    def _free_name(self, step: int) -> Path:
        # The same step may be written twice (pause right after a timed checkpoint); never replace the older one.
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
    """The checkpoint in a folder by its manifest; CheckpointError when that or a file is missing or cut short."""
    manifest = _manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        with _reading(file):
            whole = file.is_file() and file.stat().st_size == entry["size_bytes"]
        if not whole:
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
    """CheckpointError when a file of the folder cannot be read or differs from the SHA-256 in its manifest, or when
    the weights are not finite."""
    for name, entry in _manifest(path)["files"].items():
        with _reading(path / name):
            digest = sha256_of(path / name)
        if digest != entry["sha256"]:
            raise CheckpointError(f"{path / name}: its SHA-256 differs from the manifest; the file is damaged")
    require_usable(load_tensors(path / WEIGHTS)[0], str(path))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Verified weights and meta of one checkpoint folder, training state left aside."""
    info = read_info(path)
    verify(path)
    weights, _ = load_tensors(path / WEIGHTS)
    return weights, info.meta


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What the operating system cannot read is a damaged checkpoint, which is passed over."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error


def _manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        known = (
            manifest["format"] == FORMAT
            and isinstance(manifest["meta"], dict)
            and isinstance(manifest["created_at"], str)
            and isinstance(manifest["step"], int)
            and set(manifest["files"]) == {WEIGHTS, STATE}
            and all(isinstance(entry["size_bytes"], int) for entry in manifest["files"].values())
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint folder (it has no {MANIFEST})") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: the manifest cannot be read ({error})") from error
    if not known:
        raise CheckpointError(f"{file}: not a manifest of format {FORMAT}")
    return dict(manifest)
