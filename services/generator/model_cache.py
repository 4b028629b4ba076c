"""Models and policies that stay loaded: the last few used, by file and time of change.

A file that was replaced is loaded anew. References lead only into the artifact store. Leaves out: generating.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch

from common.artifacts import ArtifactStore
from common.checkpoint import load_model
from common.controller import GatingPolicy, load_policy
from common.model import TransformerLM

T = TypeVar("T")


class FileCache(Generic[T]):
    """At most `capacity` loaded files, the least recently used dropped first."""

    def __init__(self, load: Callable[[Path], T], capacity: int) -> None:
        self._load = load
        self._capacity = capacity
        self._loaded: OrderedDict[Path, tuple[int, T]] = OrderedDict()

    def get(self, path: Path) -> T:
        """What is in `path` now. Errors are those of loading; a failed load leaves the others in place."""
        changed = _changed_at(path)
        held = self._loaded.get(path)
        if held is None or held[0] != changed:
            self._loaded.pop(path, None)
            while len(self._loaded) >= self._capacity:
                self._loaded.popitem(last=False)
            held = (changed, self._load(path))
            self._loaded[path] = held
        self._loaded.move_to_end(path)
        return held[1]


class ModelCache:
    """Language models and policies by their reference in the store."""

    def __init__(self, store: ArtifactStore, *, device: torch.device, capacity: int) -> None:
        self._store = store
        self._models: FileCache[TransformerLM] = FileCache(lambda path: load_model(path, device=device), capacity)
        self._policies: FileCache[GatingPolicy] = FileCache(lambda path: load_policy(path, device=device), capacity)

    def model(self, reference: str) -> TransformerLM:
        """Raises InvalidInputError, NotFoundError or CheckpointError when the reference gives no language model."""
        return self._models.get(self._store.resolve(reference))

    def policy(self, reference: str) -> GatingPolicy:
        """Raises InvalidInputError, NotFoundError or CheckpointError when the reference gives no policy."""
        return self._policies.get(self._store.resolve(reference))


def _changed_at(path: Path) -> int:
    """Time of the last change in ns; of a checkpoint folder, of its manifest."""
    manifest = path / "manifest.json"
    return (manifest if manifest.exists() else path).stat().st_mtime_ns
