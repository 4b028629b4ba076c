"""Logs of a job, by cursor or whole: the files `<experiment>/logs/<attempt>.log`, one after the other.

A cursor is `<attempt>-<byte offset>-<line number>`: reading goes on where it stopped, however large the file. A line
that is not finished yet is left for the next page. A search looks at so many bytes per page and may find nothing in
them; the cursor goes on. Leaves out: the live lines (the job's stream).
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
"""Longer lines are cut in a page, which says so; `whole_log` cuts nothing."""

CHUNK_BYTES = 256 * 1024

SCAN_BYTES = 8 * 1024 * 1024
"""A search looks at so much per page."""

_CURSOR = re.compile(r"(\d{1,6})-(\d{1,15})-(\d{1,12})")


@dataclass(frozen=True)
class LogPosition:
    """Where the next page begins."""

    attempt: int
    offset: int
    line: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.offset}-{self.line}"


def parse_position(cursor: str | None) -> LogPosition:
    """The position in `cursor`; the beginning without one. InvalidInputError for anything else."""
    if cursor is None:
        return LogPosition(0, 0, 0)
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise InvalidInputError.at(
            "query.cursor", "not a cursor of a log; use `nextCursor` of the page before as it is"
        )
    return LogPosition(*(int(part) for part in found.groups()))


def read_logs(folder: Path, cursor: str | None, limit: int, *, ended: bool, search: str | None = None) -> LogPage:
    """At most `limit` lines of the logs in `folder` from `cursor` on; `ended`: nothing will be written any more.

    With `search` only lines that contain it, whatever the case of letters.
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
    """Everything that is in the logs now, as it was written; a headline before each attempt where there are several."""
    attempts = _attempts(folder)
    for attempt in attempts:
        if len(attempts) > 1:
            yield f"==== attempt {attempt} ====\n".encode()
        ends = b"\n"
        # Retention may delete a file between the listing and the reading.
        with suppress(FileNotFoundError), (folder / f"{attempt}.log").open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
                ends = chunk[-1:]
        if ends != b"\n" and attempt != attempts[-1]:
            yield b"\n"


def _attempts(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdecimal())


class _Page:
    """The lines of one reply."""

    def __init__(self, limit: int, wanted: str | None) -> None:
        self._limit, self._wanted = limit, wanted
        self._scanned = 0
        self.lines: list[LogLine] = []

    @property
    def full(self) -> bool:
        """Nothing more fits, or enough was looked at."""
        return len(self.lines) >= self._limit or (self._wanted is not None and self._scanned >= SCAN_BYTES)

    def read(self, path: Path, start: LogPosition, *, unfinished_waits: bool) -> LogPosition:
        """Take lines of one attempt from `start` on; where the next page begins."""
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
