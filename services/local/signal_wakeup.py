"""Lets one thread wait for both signals and the output of child processes."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalWakeup:
    """A context in which stop signals and the end of a child interrupt `wait`.

    Leaving the context restores the earlier signal handlers. `wait` calls `on_stop` once for each stop signal. The
    signal handlers themselves do not call `on_stop`.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self._stop_signals = 0
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            self._old[number] = signal.signal(number, self._handle)
        self._old_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._old_descriptor)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stop_signals += 1

    def wait(self, descriptors: Iterable[int], seconds: float) -> None:
        """Wait until a descriptor can be read, a signal has arrived, or `seconds` have passed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            for descriptor in descriptors:
                selector.register(descriptor, selectors.EVENT_READ)
            if not self._stop_signals:
                selector.select(seconds)
        with suppress(BlockingIOError):
            while self._reader.recv(1024):
                pass
        while self._stop_signals:
            self._stop_signals -= 1
            self._on_stop()
