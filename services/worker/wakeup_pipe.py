"""Ends a wait for a descriptor from another thread: a pipe with one byte in it. Safe to use after `close`."""

from __future__ import annotations

import contextlib
import os
import threading


class WakeupPipe:
    """`set` from any thread; the waiter polls `fileno()` beside its own descriptor and calls `clear`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._lock = threading.Lock()
        self._set = self._closed = False

    def fileno(self) -> int:
        """Readable while it is set."""
        return self._reader

    def set(self) -> None:
        """Wake the waiter, now or at its next wait."""
        with self._lock:
            if not (self._set or self._closed):
                self._set = True
                os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Before looking at what may have changed."""
        with self._lock:
            if self._set and not self._closed:
                self._set = False
                os.read(self._reader, 1)

    def close(self) -> None:
        """Free the pipe; later calls do nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for end in (self._reader, self._writer):
                    with contextlib.suppress(OSError):
                        os.close(end)
