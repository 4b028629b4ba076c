"""Captures the output of a trainer in a file of limited size, and sends it to the live streams.

stdout and stderr share one pipe, so their order is kept. One thread copies the pipe to
`<experiment>/logs/<attempt>.log`; the trainer therefore never waits for Redis. A second thread sends complete lines to
the streams of job and experiment. `close` waits until all output is processed. While the disk is full, up to
`BACKLOG_BYTES` of output are kept in memory; further output is dropped and its bytes are counted. Files are not
rotated.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from common.disk import is_full
from common.logging import get_logger
from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect
from common.redis.shipper import StreamEntry, StreamShipper

log = get_logger(__name__)

MAX_BYTES = 64 * 1024 * 1024
MAX_LINE = 4096
"""Maximum number of characters of a line in the live stream. The file contains the complete line."""
LINES_PER_ENTRY = 200
SHIP_SECONDS = 0.2
PIPE_BYTES = 1024 * 1024
"""Maximum number of bytes that are still read from the pipe after `close` has waited for `CLOSE_SECONDS`."""
BACKLOG_BYTES = 1024 * 1024
"""Maximum number of bytes of output that are kept in memory while the disk is full.

This is enough, because a trainer prints little while it waits for free disk space.
"""
CLOSE_SECONDS = 2.0
"""`close` waits at most this number of seconds for the end of the pipe, and then at most as many seconds for Redis.

Both waits need a limit, because a grandchild may hold the pipe open, and Redis may not answer.
"""


class LogCapture:
    """The log of one attempt.

    Pass `write_fd` to the child, and then call `close_write_end`. Call `close` after the child has ended.
    """

    def __init__(
        self,
        path: Path,
        *,
        attempt: int,
        redis_url: str | None = None,
        streams: Sequence[str] = (),
        stream_max_length: int = 20_000,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = path
        self._remaining_bytes = max_bytes
        self._dropped = 0
        self._last_byte = b"\n"
        self._tail = b""
        self._backlog = bytearray()
        self._write_failed = False
        self._file: io.FileIO | None = None
        try:
            self._open()
        except OSError as error:
            if not is_full(error):
                raise
            # A full disk must not prevent the start of the trainer, which waits for free space by itself (in the phase
            # `waiting_for_disk`).
            log.warning("the disk is full; the log is kept in memory", path=str(path), error=str(error))
        self._read_fd, self.write_fd = os.pipe()
        self._stop = threading.Event()
        self._lines_waiting = threading.Event()
        """Set when complete lines can be sent, and when `close` is called."""
        self._shipper: StreamShipper | None = None
        if redis_url is not None:
            client = connect(redis_url, WORKER_COMMANDS)
            self._shipper = StreamShipper(client, streams, _Renderer(attempt), max_length=stream_max_length)
        self._threads = [threading.Thread(target=self._pump, name="log-pump", daemon=True)]
        if self._shipper is not None:
            self._threads.append(threading.Thread(target=self._ship, name="log-ship", daemon=True))
        for thread in self._threads:
            thread.start()

    def close_write_end(self) -> None:
        """Close the write end in this process, so that the pipe ends when the child exits."""
        fd, self.write_fd = self.write_fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def tail(self) -> str:
        """The last 4,000 bytes of the output as text, for an error message."""
        return self._tail.decode(errors="replace").strip()

    def close(self) -> None:
        """Wait until all output of the child is in the file and, if Redis answers, in the streams."""
        self.close_write_end()
        self._threads[0].join(CLOSE_SECONDS)
        self._stop.set()
        self._lines_waiting.set()
        for thread in self._threads:
            thread.join()
        os.close(self._read_fd)
        self._finish_file()
        if self._shipper is not None and self._file is not None:
            deadline = time.monotonic() + CLOSE_SECONDS
            while not self._shipper.ship([self.path], force=True) and time.monotonic() < deadline:
                time.sleep(0.1)
            self._shipper.close()

    def _pump(self) -> None:
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN | select.POLLHUP)
        read_after_stop = 0
        while read_after_stop < PIPE_BYTES:  # A limit, because a grandchild may never stop writing.
            if not poller.poll(200):
                if self._stop.is_set():
                    return
                if self._backlog:
                    self._write()
                continue
            data = os.read(self._read_fd, 65536)
            if not data:
                return
            self._store(data)
            read_after_stop += len(data) if self._stop.is_set() else 0

    def _store(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-4000:]
        kept = data[: self._remaining_bytes]
        self._remaining_bytes -= len(kept)
        self._dropped += len(data) - len(kept)
        if not kept:
            return
        self._backlog += kept
        self._write()

    def _open(self) -> io.FileIO:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
        return self._file

    def _write(self) -> None:
        """Write the backlog until the disk accepts no more. Errors are logged and never block the trainer."""
        try:
            file = self._open()
            while self._backlog:
                count = file.write(self._backlog)
                written, self._last_byte = self._backlog[:count], bytes(self._backlog[count - 1 : count])
                del self._backlog[:count]
                if b"\n" in written:
                    self._lines_waiting.set()
            self._write_failed = False
        except OSError as error:
            surplus = len(self._backlog) - BACKLOG_BYTES if is_full(error) else len(self._backlog)
            if surplus > 0:
                self._dropped += surplus
                del self._backlog[-surplus:]
            if not self._write_failed or surplus > 0:
                lost = max(0, surplus)
                log.warning("the log file cannot be written", path=str(self.path), error=str(error), lost_bytes=lost)
            self._write_failed = True

    def _finish_file(self) -> None:
        self._write()
        self._dropped += len(self._backlog)
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._last_byte != b"\n":
                self._file.write(b"\n")
            if self._dropped:
                self._file.write(f"[tidal] {self._dropped} bytes of output were dropped\n".encode())
        self._file.close()

    def _ship(self) -> None:
        assert self._shipper is not None
        while not self._stop.wait(SHIP_SECONDS):
            self._lines_waiting.wait()
            self._lines_waiting.clear()
            try:
                if not self._shipper.ship([self.path]):
                    # Redis does not answer. Try again; `ship` returns at once until its delay has passed.
                    self._lines_waiting.set()
            except Exception:
                log.exception("log lines could not be sent")


class _Renderer:
    """Converts lines of the log file to stream entries."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt

    def __call__(self, lines: list[bytes], first: int) -> list[StreamEntry]:
        numbered = [
            {"n": first + index, "text": line.decode(errors="replace").rstrip("\r\n")[:MAX_LINE]}
            for index, line in enumerate(lines)
        ]
        return [
            (keys.EVENT_LOG_LINES, json.dumps({"attempt": self._attempt, "lines": numbered[at : at + LINES_PER_ENTRY]}))
            for at in range(0, len(numbered), LINES_PER_ENTRY)
        ]
