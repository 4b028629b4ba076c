"""Writes the archive of one kind of metrics as segments: files that are closed at a certain age or size.

Each write appends complete lines or nothing. `common.metrics.writer` makes the lines.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Segments:
    """The segments of one kind that this process writes; only the last one is open.

    A segment that is `seconds` old or has `limit` bytes is closed before the next write.
    """

    def __init__(self, folder: Path, kind: str, attempt: int, seconds: float, limit: int) -> None:
        self._folder, self._kind, self._attempt = folder, kind, attempt
        self._seconds, self._limit = seconds, limit
        used_numbers = [int(path.stem.rsplit("-", 1)[1]) for path in folder.glob(f"{kind}-{attempt}-*.jsonl")]
        self._number = max(used_numbers, default=0)
        self._fd = -1
        self._size = 0
        self._opened = 0.0
        self.paths: list[Path] = []

    def append(self, data: bytes) -> None:
        """Write all of `data` or, after an error, nothing. Raises OSError."""
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
        """Flush the open segment to disk without closing it. Raises OSError."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Flush the open segment to disk and close it. Raises OSError."""
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
