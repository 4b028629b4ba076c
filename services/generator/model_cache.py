"""Models and policies that stay loaded: the last used that fit into the memory given, by file and time of change.

A file that was replaced, as by a training that goes on, is loaded anew. References lead only into the artifact store.
Not for several threads. Leaves out: generating.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

import torch

from common.artifacts import ArtifactStore
from common.checkpoint import load_model
from common.controller import GatingPolicy, load_policy
from common.generation import DecodingModel, Precision

T = TypeVar("T")


class FileCache(Generic[T]):
    """Loaded files of at most `capacity` bytes together, the least recently used dropped first.

    The one used last stays, whatever its size, and so do those that `in_use` gives: dropping them frees no memory.
    """

    def __init__(
        self,
        load: Callable[[Path], T],
        size: Callable[[T], int],
        capacity: int,
        in_use: Callable[[], Collection[T]] = tuple,
    ) -> None:
        self._load = load
        self._size = size
        self._capacity = capacity
        self._in_use = in_use
        self._loaded: OrderedDict[Path, tuple[int, T]] = OrderedDict()

    def get(self, path: Path) -> T:
        """What is in `path` now. Errors are those of loading; a failed load leaves the others in place."""
        changed = _changed_at(path)
        held = self._loaded.get(path)
        if held is None or held[0] != changed:
            self._loaded.pop(path, None)
            held = (changed, self._load(path))
            self._loaded[path] = held
        self._loaded.move_to_end(path)
        self._drop()
        return held[1]

    def _drop(self) -> None:
        used = self._in_use()
        held = sum(self._size(loaded) for _, loaded in self._loaded.values())
        for path, (_, loaded) in list(self._loaded.items())[:-1]:
            if held <= self._capacity:
                return
            if not any(loaded is its for its in used):
                del self._loaded[path]
                held -= self._size(loaded)


class ModelCache:
    """Language models, packed for decoding in `precision`, and policies by their reference in the store.

    `in_use` is asked, from the thread that loads, for the models that batches run on.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        device: torch.device,
        capacity: int,
        precision: Precision | str = Precision.FLOAT32,
    ) -> None:
        def load(path: Path) -> DecodingModel:
            return DecodingModel(load_model(path, device=device), precision=precision)

        self.in_use: Callable[[], Collection[DecodingModel]] = tuple
        self._store = store
        self._models: FileCache[DecodingModel] = FileCache(
            load, lambda model: model.nbytes, capacity, lambda: self.in_use()
        )
        self._policies: FileCache[GatingPolicy] = FileCache(
            lambda path: load_policy(path, device=device), _policy_bytes, capacity
        )

    def model(self, reference: str) -> DecodingModel:
        """Raises InvalidInputError, NotFoundError or CheckpointError when the reference gives no language model."""
        return self._models.get(self._store.resolve(reference))

    def policy(self, reference: str) -> GatingPolicy:
        """Raises InvalidInputError, NotFoundError or CheckpointError when the reference gives no policy."""
        return self._policies.get(self._store.resolve(reference))


def _policy_bytes(policy: GatingPolicy) -> int:
    return sum(parameter.nbytes for parameter in policy.parameters())


def _changed_at(path: Path) -> int:
    """Time of the last change in ns; of a checkpoint folder, of its manifest."""
    manifest = path / "manifest.json"
    return (manifest if manifest.exists() else path).stat().st_mtime_ns
