"""Sends the complete lines of growing files to Redis streams: each line exactly once, also after lost connections.

The data stay in the files; this module only keeps the position up to which they were sent. Each batch of entries and
the new position are written in one MULTI, so after a lost connection the position in Redis shows whether the last batch
arrived. If Redis was emptied and has no position, sending continues at the position in memory, and readers of the
streams read the earlier lines from the files. Errors of Redis are never raised. The caller writes the files and decides
when to send.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from common.backoff import Backoff
from common.logging import get_logger

log = get_logger(__name__)

CHUNK_BYTES = 128 * 1024
CURSOR_TTL_SECONDS = 24 * 3600
_FIRST_RETRY_SECONDS = 0.2
_LAST_RETRY_SECONDS = 5.0

StreamEntry = tuple[str, str]
"""The event type and its data as JSON."""


@dataclass(frozen=True)
class FilePosition:
    """The position up to which lines were sent: index of the file, byte offset in it, lines sent from all files."""

    file: int = 0
    offset: int = 0
    line: int = 0


class StreamShipper:
    """Follows a list of growing files and sends their lines to `streams`. Use from one thread."""

    def __init__(
        self,
        client: redis.Redis,
        streams: Sequence[str],
        render: Callable[[list[bytes], int], list[StreamEntry]],
        *,
        max_length: int = 20_000,
    ) -> None:
        """Create a shipper. `render(lines, number of the first line)` converts complete lines to stream entries."""
        self._client = client
        self._streams = tuple(streams)
        self._render = render
        self._max_length = max_length
        self._cursor = f"tidal:cursor:{uuid.uuid4().hex}"
        self._position = FilePosition()
        self._in_doubt = False
        self._retry_at = 0.0
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)

    @property
    def position(self) -> FilePosition:
        """The position up to which all lines were sent to the streams."""
        return self._position

    def ship(self, files: Sequence[Path], *, force: bool = False) -> bool:
        """Send all new lines; return False if they could not be sent.

        After a failure, a call returns False at once until a delay has passed. With `force`, it tries again at once.
        """
        if not force and time.monotonic() < self._retry_at:
            return False
        try:
            if self._in_doubt:
                self._restore_position()
            while (batch := self._next(files)) is not None:
                self._send(*batch)
        except (redis.RedisError, OSError) as error:
            if not self._in_doubt:
                log.warning("a live stream is interrupted", stream=self._streams[0], error=str(error))
            self._in_doubt = True
            self._retry_at = time.monotonic() + self._backoff.next()
            return False
        self._backoff.reset()
        return True

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _next(self, files: Sequence[Path]) -> tuple[list[bytes], FilePosition] | None:
        position = self._position
        while position.file < len(files):
            lines = _complete_lines(files[position.file], position.offset)
            if lines:
                size = sum(map(len, lines))
                return lines, FilePosition(position.file, position.offset + size, position.line + len(lines))
            if position.file + 1 == len(files):
                return None
            position = FilePosition(position.file + 1, 0, position.line)
        return None

    def _send(self, lines: list[bytes], after: FilePosition) -> None:
        entries = self._render(lines, self._position.line)
        with self._client.pipeline(transaction=True) as pipe:
            for stream in self._streams:
                for event, data in entries:
                    pipe.xadd(stream, {"event": event, "data": data}, maxlen=self._max_length, approximate=True)
            pipe.set(self._cursor, f"{after.file}:{after.offset}:{after.line}", ex=CURSOR_TTL_SECONDS)
            pipe.execute()
        self._position = after

    def _restore_position(self) -> None:
        """Set the position to the value in Redis, which shows whether the last batch arrived."""
        value = self._client.get(self._cursor)
        if value is not None:
            file, offset, line = (int(part) for part in str(value).split(":"))
            self._position = FilePosition(file, offset, line)
        self._in_doubt = False
        log.info("a live stream continues", stream=self._streams[0])


def _complete_lines(path: Path, offset: int) -> list[bytes]:
    """Return the complete lines after `offset`, at most CHUNK_BYTES in total, or a single line if it is longer."""
    limit = CHUNK_BYTES
    try:
        with path.open("rb") as file:
            while True:
                file.seek(offset)
                data = file.read(limit)
                end = data.rfind(b"\n")
                if end >= 0:
                    return data[: end + 1].splitlines(keepends=True)
                if len(data) < limit:
                    return []
                limit *= 2
    except FileNotFoundError:
        return []
