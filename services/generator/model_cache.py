"""Models and policies that stay loaded: the last used that fit into the memory given, by file and time of change.

A file that was replaced, as by a training that goes on, is loaded anew. References lead only into the artifact store.
One thread loads; others may ask for what is there and let go. Leaves out: generating.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

import torch

from common.artifacts import ArtifactStore
from common.checkpoint import load_model
from common.controller import GatingPolicy, load_policy
from common.errors import NotFoundError
from common.generation import DecodingModel, Precision

T = TypeVar("T")


class FileCache(Generic[T]):
    """Loaded files of at most `capacity` bytes together, the least recently used dropped first.

    The one used last stays, whatever its size, and so do those that `in_use` gives: dropping them frees no memory. What
    was given to a `holder` stays until its `release`.
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
        self._holders: dict[str, T] = {}
        self._lock = threading.Lock()

    def get(self, path: Path, holder: str | None = None) -> T:
        """What is in `path` now; for one thread. NotFoundError; errors of loading, which leaves the others in place."""
        found = self.held(path, holder)
        if found is not None:
            return found
        changed = _changed_at(path)
        with self._lock:
            self._loaded.pop(path, None)
        loaded = self._load(path)
        with self._lock:
            self._loaded[path] = (changed, loaded)
            self._take(path, loaded, holder)
        return loaded

    def held(self, path: Path, holder: str | None = None) -> T | None:
        """What is in `path` now if it is loaded already; for any thread."""
        changed = _changed_at(path)
        with self._lock:
            held = self._loaded.get(path)
            if held is None or held[0] != changed:
                return None
            self._take(path, held[1], holder)
            return held[1]

    def release(self, holder: str) -> None:
        """What it was given may go; for any thread."""
        with self._lock:
            self._holders.pop(holder, None)

    def _take(self, path: Path, loaded: T, holder: str | None) -> None:
        if holder is not None:
            self._holders[holder] = loaded
        self._loaded.move_to_end(path)
        self._drop()

    def _drop(self) -> None:
        used = [*self._in_use(), *self._holders.values()]
        held = sum(self._size(loaded) for _, loaded in self._loaded.values())
        for path, (_, loaded) in list(self._loaded.items())[:-1]:
            if held <= self._capacity:
                return
            if not any(loaded is its for its in used):
                del self._loaded[path]
                held -= self._size(loaded)


class ModelCache:
    """Language models, packed for decoding in `precision`, and policies by their reference in the store.

    `in_use` is asked, from any thread that asks for a model, for the models that batches run on.
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

    def model(self, reference: str, holder: str | None = None) -> DecodingModel:
        """For one thread; the model stays loaded until `release` of the holder. Raises InvalidInputError, NotFoundError
        or CheckpointError when the reference gives no language model."""
        return self._models.get(self._store.resolve(reference), holder)

    def policy(self, reference: str) -> GatingPolicy:
        """For one thread. Raises InvalidInputError, NotFoundError or CheckpointError when the reference gives no
        policy."""
        return self._policies.get(self._store.resolve(reference))

    def held(self, reference: str, policy: str | None, holder: str) -> tuple[DecodingModel, GatingPolicy | None] | None:
        """Both, where both are loaded already; for any thread. Errors are those of the references, and OSError."""
        found = None if policy is None else self._policies.held(self._store.resolve(policy))
        if policy is not None and found is None:
            return None
        model = self._models.held(self._store.resolve(reference), holder)
        return None if model is None else (model, found)

    def release(self, holder: str) -> None:
        """The model it was given may go; for any thread."""
        self._models.release(holder)


def _policy_bytes(policy: GatingPolicy) -> int:
    return sum(parameter.nbytes for parameter in policy.parameters())


def _changed_at(path: Path) -> int:
    """Time of the last change in ns; of a checkpoint folder, of its manifest. NotFoundError."""
    manifest = path / "manifest.json"
    try:
        return (manifest if manifest.exists() else path).stat().st_mtime_ns
    except FileNotFoundError:
        raise NotFoundError(f"checkpoint {path.name} was removed meanwhile") from None
