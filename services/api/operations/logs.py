"""Reads the log of a job, page by page or as a whole, from the files `<experiment>/logs/<attempt>.log`, in the order of
the attempts.

A cursor is `<attempt>-<byte offset>-<line number>`, so that the next page begins at the offset, and nothing before the
offset is read again. An incomplete line is returned only once it is complete. A search reads a limited number of bytes
per page; therefore a page may be empty although more lines follow its cursor. The job's stream sends new lines while
the job runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidInputError
from tidal_client.wire.job import LogLine, LogPage

MAX_LINE_BYTES = 16 * 1024
"""Maximum length of a line in a page, in bytes. A longer line is cut, with a note; `complete_log` cuts no lines."""

CHUNK_BYTES = 256 * 1024

SCAN_BYTES = 8 * 1024 * 1024
"""Maximum number of bytes that a search reads per page."""

_CURSOR = re.compile(r"(\d{1,6})-(\d{1,15})-(\d{1,12})")


@dataclass(frozen=True)
class LogPosition:
    """A position in the log of a job: attempt, byte offset in the attempt's file, and number of lines before it."""

    attempt: int
    offset: int
    line: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.offset}-{self.line}"


def parse_position(cursor: str | None) -> LogPosition:
    """Return the position that a cursor contains; for None, the beginning of the log. Raises InvalidInputError."""
    if cursor is None:
        return LogPosition(0, 0, 0)
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise InvalidInputError.at(
            "query.cursor", "it is not a cursor of a log; use `nextCursor` of the previous page unchanged"
        )
    return LogPosition(*(int(part) for part in found.groups()))


def read_logs(folder: Path, cursor: str | None, limit: int, *, ended: bool, search: str | None = None) -> LogPage:
    """Return at most `limit` lines of the logs in `folder` that follow `cursor`.

    Pass `ended` if the job writes no more lines; an incomplete last line is then returned as well. With `search`, only
    lines that contain this text are returned, ignoring case. Raises InvalidInputError for an invalid cursor.
    """
    position = parse_position(cursor)
    attempts = _attempts(folder)
    page = _Page(limit, search.casefold() if search else None)
    complete = True
    for attempt in attempts:
        if attempt < position.attempt:
            continue
        if attempt > position.attempt:
            position = LogPosition(attempt, 0, 0)
        last = attempt == attempts[-1] and not ended
        position = page.read(folder / f"{attempt}.log", position, unfinished_waits=last)
        if page.full:
            complete = False
            break
    return LogPage(lines=page.lines, next_cursor=str(position), complete=complete)


def complete_log(folder: Path) -> Iterator[bytes]:
    """Yield the current content of the logs of all attempts, unchanged. If there are several attempts, a heading
    precedes the log of each."""
    attempts = _attempts(folder)
    for attempt in attempts:
        if len(attempts) > 1:
            yield f"==== attempt {attempt} ====\n".encode()
        ends = b"\n"
        # A log may be deleted after its retention period, between the listing and the reading.
        with suppress(FileNotFoundError), (folder / f"{attempt}.log").open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                ends = chunk[-1:]
        if ends != b"\n" and attempt != attempts[-1]:
            yield b"\n"


def _attempts(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdecimal())


class _Page:
    """Collects the lines of one page; `wanted` is the text to search for, case-folded, or None."""

    def __init__(self, limit: int, wanted: str | None) -> None:
        self._limit, self._wanted = limit, wanted
        self._scanned = 0
        self.lines: list[LogLine] = []

    @property
    def full(self) -> bool:
        """Return whether the page has enough lines, or the search has read the maximum number of bytes."""
        return len(self.lines) >= self._limit or (self._wanted is not None and self._scanned >= SCAN_BYTES)

    def read(self, path: Path, start: LogPosition, *, unfinished_waits: bool) -> LogPosition:
        """Add the lines of one attempt, beginning at `start`. Return the position at which the next page begins."""
        offset, number = start.offset, start.line
        with path.open("rb") as file:
            file.seek(offset)
            while not self.full:
                raw = file.readline()
                if not raw or (not raw.endswith(b"\n") and unfinished_waits):
                    break
                offset += len(raw)
                number += 1
                self._scanned += len(raw)
                if self._wanted is None or self._wanted in raw.decode("utf-8", "replace").casefold():
                    line = raw.rstrip(b"\r\n")
                    text = line[:MAX_LINE_BYTES].decode("utf-8", "replace")
                    if len(line) > MAX_LINE_BYTES:
                        text += f" … (cut; the whole line has {len(line)} bytes)"
                    self.lines.append(LogLine(attempt=start.attempt, line=number, text=text))
        return LogPosition(start.attempt, offset, number)
