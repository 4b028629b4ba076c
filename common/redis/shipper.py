"""Send the complete lines of growing files to Redis streams, each exactly once, whatever happens to Redis.

The files are the truth; this only remembers how far it got. Each batch of entries and the new position are written in
one MULTI, so after a lost connection the position in Redis says whether the batch in doubt arrived. A Redis that was
emptied has no position: then ours counts, and readers restart from the archive. Never raises for reasons of Redis.
Leaves out: writing the files, threads, timing.
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

Entry = tuple[str, str]
"""Event type and JSON data."""


@dataclass(frozen=True)
class Position:
    """File by index, byte offset in it, and lines sent so far in all."""

    file: int = 0
    offset: int = 0
    line: int = 0


class StreamShipper:
    """Tails a list of files into `streams`; use from one thread."""

    def __init__(
        self,
        client: redis.Redis,
        streams: Sequence[str],
        render: Callable[[list[bytes], int], list[Entry]],
        *,
        max_length: int = 20_000,
    ) -> None:
        """`render` makes stream entries of complete lines; its second argument is the number of the first one."""
        self._client = client
        self._streams = tuple(streams)
        self._render = render
        self._max_length = max_length
        self._cursor = f"tidal:cursor:{uuid.uuid4().hex}"
        self._position = Position()
        self._in_doubt = False
        self._retry_at = 0.0
        self._backoff = Backoff(_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS)

    @property
    def position(self) -> Position:
        """Everything before it is in the streams."""
        return self._position

    def ship(self, files: Sequence[Path], *, force: bool = False) -> bool:
        """Send what is new; True when nothing is left. `force` tries at once in spite of an earlier failure."""
        if not force and time.monotonic() < self._retry_at:
            return False
        try:
            if self._in_doubt:
                self._ask_redis()
            while (batch := self._next(files)) is not None:
                self._send(*batch)
        except (redis.RedisError, OSError) as error:
            if not self._in_doubt:
                log.warning("live stream interrupted", stream=self._streams[0], error=str(error))
            self._in_doubt = True
            self._retry_at = time.monotonic() + self._backoff.next()
            return False
        self._backoff.reset()
        return True

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def _next(self, files: Sequence[Path]) -> tuple[list[bytes], Position] | None:
        at = self._position
        while at.file < len(files):
            lines = _complete_lines(files[at.file], at.offset)
            if lines:
                size = sum(map(len, lines))
                return lines, Position(at.file, at.offset + size, at.line + len(lines))
            if at.file + 1 == len(files):
                return None
            at = Position(at.file + 1, 0, at.line)
        return None

    def _send(self, lines: list[bytes], after: Position) -> None:
        entries = self._render(lines, self._position.line)
        with self._client.pipeline(transaction=True) as pipe:
            for stream in self._streams:
                for event, data in entries:
                    pipe.xadd(stream, {"event": event, "data": data}, maxlen=self._max_length, approximate=True)
            pipe.set(self._cursor, f"{after.file}:{after.offset}:{after.line}", ex=CURSOR_TTL_SECONDS)
            pipe.execute()
        self._position = after

    def _ask_redis(self) -> None:
        value = self._client.get(self._cursor)
        if value is not None:
            file, offset, line = (int(part) for part in str(value).split(":"))
            self._position = Position(file, offset, line)
        self._in_doubt = False
        log.info("live stream goes on", stream=self._streams[0])


def _complete_lines(path: Path, offset: int) -> list[bytes]:
    """Up to CHUNK_BYTES of whole lines from `offset`; one longer line is returned whole."""
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
