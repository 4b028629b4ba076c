"""Measures the disk space of all experiments and of the data folder, on request but at most once a minute."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.artifacts import ArtifactStore
from common.disk import size_of

CACHE_SECONDS = 60.0


@dataclass(frozen=True)
class Sizes:
    """The result of one measurement. All sizes are in bytes."""

    experiments: dict[str, int]
    """{experiment id: size}."""
    data: int
    at: datetime


class SizeCache:
    """Measures the sizes and caches the result. One thread measures at a time; other threads wait for its result."""

    def __init__(self, store: ArtifactStore, data_dir: Path) -> None:
        self._store, self._data_dir = store, data_dir
        self._lock = threading.Lock()
        self._sizes: Sizes | None = None
        self._until = 0.0

    def sizes(self) -> Sizes:
        """Return sizes that are at most CACHE_SECONDS old."""
        with self._lock:
            if self._sizes is None or time.monotonic() > self._until:
                found = {name: size_of(self._store.root / name) for name in self._store.experiments()}
                self._sizes = Sizes(found, size_of(self._data_dir), datetime.now(UTC))
                self._until = time.monotonic() + CACHE_SECONDS
            return self._sizes
