"""Writes the output lines of many processes to one file per process and, with the name of the process, to the terminal.

A structured line is shortened for the terminal, because the prefix already names time and service; the file has all of
it.
Files rotate at 20 MB, and one older file is kept. A full disk or a closed terminal loses lines but causes no error:
lost lines are counted, and the file reports the count when it can be written again. Repeated raw lines (tracebacks,
messages of servers) are limited and counted; structured lines are limited by `common.log_repeats` in their own process.
Every line is escaped, so that it stays one line and cannot control the terminal.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections import OrderedDict, deque
from contextlib import suppress
from io import FileIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from common.plain_text import escaped

MAX_BYTES = 20_000_000
MOST_CHARACTERS = 100_000
"""Most characters of a line; longer lines are cut."""
KEPT_LINES = 30
COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}

STRUCTURED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\s+\[(\w+)\s*\]\s+(.*)$")
PLAIN_LEVEL = re.compile(r"\b(INFO|WARNING|ERROR|CRITICAL)\b")
SAME_LINES = 100
"""Number of raw lines of one process, equal except for numbers, that are written without delay."""
SECONDS_PER_LINE = 3.0
"""After the first `SAME_LINES`, one more line is written per this many seconds."""
MOST_KINDS = 1000
"""Number of most recently seen kinds of raw line that are kept per process."""
COUNT_SECONDS = 60.0
"""Seconds from the first line left out to the line with the count."""
NUMBER = re.compile(r"\d+")
SERVICE = re.compile(r"\s*\bservice=\S+")


class LogSink:
    """Writes lines of processes to files in `folder` and, unless `console` is None, to a terminal."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self._folder = folder
        self._console = console
        self._files: dict[str, FileIO] = {}
        self._last: dict[str, deque[str]] = {}
        self._lost: dict[str, int] = {}
        self._repeats: dict[str, _Repeats] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: str) -> None:
        """Write `line`, without its newline, to the file of the process `name` and to the terminal; it never fails."""
        line = escaped(line.rstrip().replace("\t", "    "), MOST_CHARACTERS)
        if not line:
            return
        repeats = self._repeats.setdefault(name, _Repeats())
        now = time.monotonic()
        if (left_out := repeats.due(now)) is not None:
            self._write(name, left_out)
        if STRUCTURED.match(line) or line.startswith("{") or repeats.admits(line, now):
            self._write(name, line)

    def tick(self) -> None:
        """Write the counts that are due. Call this regularly while no lines arrive."""
        now = time.monotonic()
        for name, repeats in self._repeats.items():
            if (left_out := repeats.due(now)) is not None:
                self._write(name, left_out)

    def _write(self, name: str, line: str) -> None:
        self._last.setdefault(name, deque(maxlen=KEPT_LINES)).append(line)
        try:
            self._append(name, line if STRUCTURED.match(line) else f"{_now()} {line}")
        except OSError:
            self._lost[name] = self._lost.get(name, 0) + 1
        if self._console is not None:
            with suppress(OSError):
                self._console.print(self._for_terminal(name, line), soft_wrap=True)

    def lost(self, name: str) -> int:
        """Return the number of lines of `name` that are missing in its file and not reported there yet."""
        return self._lost.get(name, 0)

    def last_lines(self, name: str, count: int = 12) -> list[str]:
        """Return the newest lines of a process, for an error message."""
        return list(self._last.get(name, ()))[-count:]

    def close(self) -> None:
        """Write all counts and close every file."""
        for name, repeats in self._repeats.items():
            if (left_out := repeats.due(float("inf"))) is not None:
                self._write(name, left_out)
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._files.clear()

    def _append(self, name: str, line: str) -> None:
        if lost := self._lost.get(name, 0):
            line = f"{_now()} [{lost} lines could not be written]\n{line}"
        # Unbuffered: a buffer that cannot be flushed would be tried again, and fail again, at every later line.
        file = self._file(name)
        data = f"{line}\n".encode(errors="replace")
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._lost.pop(name, None)

    def _file(self, name: str) -> FileIO:
        path = self._folder / f"{name}.log"
        file = self._files.get(name)
        if file is not None and file.tell() > MAX_BYTES:
            del self._files[name]
            file.close()
            path.replace(path.with_suffix(".log.1"))
            file = None
        if file is None:
            file = self._files[name] = path.open("ab", buffering=0)
        return file

    def _for_terminal(self, name: str, line: str) -> Text:
        level, message = "info", line
        if found := STRUCTURED.match(line):
            level = found.group(1)
            message = re.sub(r" {2,}", "  ", SERVICE.sub("", found.group(2))).rstrip()
        elif found := PLAIN_LEVEL.search(line[:60]):
            level = found.group(1).lower()
        colour = COLOURS[sum(name.encode()) % len(COLOURS)]
        return Text.assemble(
            (time.strftime("%H:%M:%S "), "dim"),
            (f"{name:<10}", colour),
            ("│ ", "dim"),
            (message, LEVEL_STYLES.get(level, "")),
        )


class _Repeats:
    """Limits and counts the repeated raw lines of one process."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Maps a line without its numbers to the count of lines that may be written and the time of that count."""
        self._left_out = 0
        self._since = 0.0

    def admits(self, line: str, now: float) -> bool:
        """Return whether to write `line`; count it otherwise."""
        kind = NUMBER.sub("0", line[:500])
        room, at = self._kinds.pop(kind, (float(SAME_LINES), now))
        room = min(SAME_LINES, room + (now - at) / SECONDS_PER_LINE)
        admitted = room >= 1
        self._kinds[kind] = (room - 1 if admitted else room, now)
        if len(self._kinds) > MOST_KINDS:
            self._kinds.popitem(last=False)
        if not admitted:
            self._since = self._since if self._left_out else now
            self._left_out += 1
        return admitted

    def due(self, now: float) -> str | None:
        """Return the line with the count if it is due, else None."""
        if not self._left_out or now - self._since < COUNT_SECONDS:
            return None
        left_out, self._left_out = self._left_out, 0
        return f"[{left_out:,} lines like earlier ones were left out]"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
