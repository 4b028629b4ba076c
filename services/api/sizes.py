"""How much the experiments take on the disk: measured file by file when somebody asks, at most once a minute."""

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
    """One measurement, in bytes."""

    experiments: dict[str, int]
    data: int
    at: datetime


class SizeCache:
    """One per app; one measures at a time, the others wait for its result."""

    def __init__(self, store: ArtifactStore, data_dir: Path) -> None:
        self._store, self._data_dir = store, data_dir
        self._lock = threading.Lock()
        self._sizes: Sizes | None = None
        self._until = 0.0

    def sizes(self) -> Sizes:
        """Not older than KEPT_SECONDS."""
        with self._lock:
            if self._sizes is None or time.monotonic() > self._until:
                found = {name: size_of(self._store.root / name) for name in self._store.experiments()}
                self._sizes = Sizes(found, size_of(self._data_dir), datetime.now(UTC))
                self._until = time.monotonic() + CACHE_SECONDS
            return self._sizes
