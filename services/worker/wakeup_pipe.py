"""A pipe with which one thread ends the wait of another thread that polls descriptors."""

from __future__ import annotations

import contextlib
import os
import threading


class WakeupPipe:
    """Any thread may call `set`; the waiter polls `fileno()` with its own descriptors, and calls `clear`.

    While it is set, the pipe contains one byte. All methods may be called after `close`.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._set = self._closed = False

    def fileno(self) -> int:
        """Return the descriptor that is readable while the pipe is set."""
        return self._reader

    def set(self) -> None:
        """End the present wait of the waiter, or its next one."""
        with self._lock:
            if not (self._set or self._closed):
                self._set = True
                os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Reset the pipe. Call this before checking what has changed, so that later changes set it again."""
        with self._lock:
            if self._set and not self._closed:
                self._set = False
                os.read(self._reader, 1)

    def close(self) -> None:
        """Close both ends; later calls of any method have no effect."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for end in (self._reader, self._writer):
                    with contextlib.suppress(OSError):
                        os.close(end)
