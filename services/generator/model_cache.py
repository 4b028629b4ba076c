"""A cache of loaded language models and policies, limited by their total size in memory.

When the limit is exceeded, the least recently used models and policies are evicted. A file is loaded again when its
modification time has changed, because a running training may replace the file. Only files in the artifact
store can be loaded. One thread loads files; any thread may get and release files that are loaded.
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
from common.generation import Backend, DecodingModel, Precision

T = TypeVar("T")


class FileCache(Generic[T]):
    """A least-recently-used cache of loaded files, limited to `capacity` bytes in all.

    Three kinds of entries are never evicted, even if the cache exceeds the capacity: the most recently used entry;
    entries that `in_use` returns, because evicting them would free no memory; and entries that a `holder` has got and
    not yet released.
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
        """Return the current content of `path`; load it if necessary. Only one thread may call this.

        Raises NotFoundError if the file does not exist, and any error of `load`. After an error, all other entries stay
        in the cache.
        """
        found = self.get_if_loaded(path, holder)
        if found is not None:
            return found
        changed = _changed_at(path)
        with self._lock:
            self._loaded.pop(path, None)
        loaded = self._load(path)
        with self._lock:
            self._loaded[path] = (changed, loaded)
            self._mark_used(path, loaded, holder)
        return loaded

    def get_if_loaded(self, path: Path, holder: str | None = None) -> T | None:
        """Return the current content of `path` if it is loaded, otherwise None. Any thread may call this."""
        changed = _changed_at(path)
        with self._lock:
            entry = self._loaded.get(path)
            if entry is None or entry[0] != changed:
                return None
            self._mark_used(path, entry[1], holder)
            return entry[1]

    def release(self, holder: str) -> None:
        """Allow the eviction of the entry that `holder` got. Any thread may call this."""
        with self._lock:
            self._holders.pop(holder, None)

    def _mark_used(self, path: Path, loaded: T, holder: str | None) -> None:
        if holder is not None:
            self._holders[holder] = loaded
        self._loaded.move_to_end(path)
        self._evict()

    def _evict(self) -> None:
        used = [*self._in_use(), *self._holders.values()]
        total = sum(self._size(loaded) for _, loaded in self._loaded.values())
        for path, (_, loaded) in list(self._loaded.items())[:-1]:
            if total <= self._capacity:
                return
            if not any(loaded is kept for kept in used):
                del self._loaded[path]
                total -= self._size(loaded)


class ModelCache:
    """Caches language models and policies by their references in the artifact store.

    Models are packed for decoding in `precision` by `backend`. `in_use` returns the models of the running batches;
    every thread that gets a model also calls `in_use`.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        device: torch.device,
        capacity: int,
        precision: Precision | str = Precision.FLOAT32,
        backend: Backend | str = Backend.TORCH,
    ) -> None:
        def load(path: Path) -> DecodingModel:
            model = DecodingModel(load_model(path, device=device), precision=precision, backend=backend)
            # Building the encoding takes up to 0.3 s. This thread does it, so that the one that decodes need not.
            _ = model.vocabulary.encoding
            return model

        self.in_use: Callable[[], Collection[DecodingModel]] = tuple
        self._store = store
        self._models: FileCache[DecodingModel] = FileCache(
            load, lambda model: model.nbytes, capacity, lambda: self.in_use()
        )
        self._policies: FileCache[GatingPolicy] = FileCache(
            lambda path: load_policy(path, device=device), _policy_bytes, capacity
        )

    def model(self, reference: str, holder: str | None = None) -> DecodingModel:
        """Return a model; load it if necessary. It stays loaded until `release(holder)` is called.

        Only one thread may call this. Raises InvalidInputError, NotFoundError or CheckpointError if `reference` does
        not name a language model.
        """
        return self._models.get(self._store.resolve(reference), holder)

    def policy(self, reference: str) -> GatingPolicy:
        """Return a policy; load it if necessary. Only one thread may call this.

        Raises InvalidInputError, NotFoundError or CheckpointError if `reference` does not name a policy.
        """
        return self._policies.get(self._store.resolve(reference))

    def get_if_loaded(
        self, reference: str, policy: str | None, holder: str
    ) -> tuple[DecodingModel, GatingPolicy | None] | None:
        """Return model and policy if both are loaded, otherwise None. Any thread may call this.

        Raises InvalidInputError or NotFoundError for an invalid reference, and OSError if a file cannot be read.
        """
        found = None if policy is None else self._policies.get_if_loaded(self._store.resolve(policy))
        if policy is not None and found is None:
            return None
        model = self._models.get_if_loaded(self._store.resolve(reference), holder)
        return None if model is None else (model, found)

    def release(self, holder: str) -> None:
        """Allow the eviction of the model that `holder` got. Any thread may call this."""
        self._models.release(holder)


def _policy_bytes(policy: GatingPolicy) -> int:
    return sum(parameter.nbytes for parameter in policy.parameters())


def _changed_at(path: Path) -> int:
    """Return the modification time of `path` in ns; for a checkpoint folder, that of its manifest.

    Raises NotFoundError if `path` does not exist.
    """
    manifest = path / "manifest.json"
    try:
        return (manifest if manifest.exists() else path).stat().st_mtime_ns
    except FileNotFoundError:
        raise NotFoundError(f"checkpoint {path.name} was removed; choose another one") from None
