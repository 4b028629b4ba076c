"""Logs of a job by cursor: the files `<experiment>/logs/<attempt>.log`, one after the other.

A cursor is `<attempt>-<byte offset>-<line number>`: reading goes on where it stopped, however large the file. A line
that is not finished yet is left for the next page. Leaves out: searching, and the live lines (the job's stream).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidInputError
from services.api.schemas.jobs import LogLine, LogPage

MAX_LINE_BYTES = 16 * 1024
"""Longer lines are cut in the reply."""

_CURSOR = re.compile(r"(\d{1,6})-(\d{1,15})-(\d{1,12})")


@dataclass(frozen=True)
class Position:
    """Where the next page begins."""

    attempt: int
    offset: int
    line: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.offset}-{self.line}"


def parse_position(cursor: str | None) -> Position:
    """The position in `cursor`; the beginning without one. InvalidInputError for anything else."""
    if cursor is None:
        return Position(0, 0, 0)
    found = _CURSOR.fullmatch(cursor)
    if not found:
        message = "no cursor of a log; use `nextCursor` of the page before as it is"
        raise InvalidInputError(f"query.cursor: {message}", errors=[{"location": "query.cursor", "message": message}])
    return Position(*(int(part) for part in found.groups()))


def read_logs(folder: Path, cursor: str | None, limit: int, *, ended: bool) -> LogPage:
    """At most `limit` lines of the logs in `folder` from `cursor` on; `ended`: nothing will be written any more."""
    position = parse_position(cursor)
    attempts = sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdecimal())
    lines: list[LogLine] = []
    complete = True
    for attempt in attempts:
        if attempt < position.attempt:
            continue
        if attempt > position.attempt:
            position = Position(attempt, 0, 0)
        last = attempt == attempts[-1] and not ended
        position = _read(folder / f"{attempt}.log", position, limit - len(lines), lines, unfinished_waits=last)
        if len(lines) >= limit:
            complete = False
            break
    return LogPage(lines=lines, next_cursor=str(position), complete=complete)


def _read(path: Path, start: Position, limit: int, into: list[LogLine], *, unfinished_waits: bool) -> Position:
    offset, number = start.offset, start.line
    with path.open("rb") as file:
        file.seek(offset)
        while limit > 0:
            raw = file.readline()
            if not raw or (not raw.endswith(b"\n") and unfinished_waits):
                break
            offset += len(raw)
            number += 1
            limit -= 1
            text = raw.rstrip(b"\r\n")[:MAX_LINE_BYTES].decode("utf-8", "replace")
            into.append(LogLine(attempt=start.attempt, line=number, text=text))
    return Position(start.attempt, offset, number)
