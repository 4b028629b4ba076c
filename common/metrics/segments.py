"""The archive's files of one kind while they are written: whole lines or nothing, a new segment by age and size.

Leaves out: what the lines say (`common.metrics.writer`).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Segments:
    """The open segment of one kind, and the ones before it."""

    def __init__(self, folder: Path, kind: str, attempt: int, seconds: float, limit: int) -> None:
        self._folder, self._kind, self._attempt = folder, kind, attempt
        self._seconds, self._limit = seconds, limit
        taken = [int(path.stem.rsplit("-", 1)[1]) for path in folder.glob(f"{kind}-{attempt}-*.jsonl")]
        self._number = max(taken, default=0)
        self._fd = -1
        self._size = 0
        self._opened = 0.0
        self.paths: list[Path] = []

    def append(self, data: bytes) -> None:
        """Write whole lines or nothing; raises OSError."""
        if self._fd >= 0 and (self._size >= self._limit or time.monotonic() - self._opened >= self._seconds):
            self.close()
        if self._fd < 0:
            self._open()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Bring the open segment to disk; it stays open. Raises OSError."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Bring the open segment to disk."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _open(self) -> None:
        path = self._folder / f"{self._kind}-{self._attempt}-{self._number + 1}.jsonl"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._number += 1
        self._size, self._opened = 0, time.monotonic()
        self.paths.append(path)
