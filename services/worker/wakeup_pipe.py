"""A pipe with which a thread wakes another thread that waits for file descriptors."""

from __future__ import annotations

import contextlib
import os
import threading


class WakeupPipe:
    """Wakes a thread that waits for file descriptors.

    Any thread may call `set`. The waiting thread polls `fileno()` together with other descriptors, and calls `clear`.
    The pipe contains one byte while it is set. All methods may be called after `close`.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._set = self._closed = False

    def fileno(self) -> int:
        """Return the file descriptor that is readable while the pipe is set."""
        return self._reader

    def set(self) -> None:
        """Wake the thread that waits for `fileno()`. If no thread is waiting, the next wait returns at once."""
        with self._lock:
            if not (self._set or self._closed):
                self._set = True
                os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Reset the pipe. Call this before checking what has changed, so that a later change sets it again."""
        with self._lock:
            if self._set and not self._closed:
                self._set = False
                os.read(self._reader, 1)

    def close(self) -> None:
        """Close both ends of the pipe. Later calls of any method have no effect."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for end in (self._reader, self._writer):
                    with contextlib.suppress(OSError):
                        os.close(end)
