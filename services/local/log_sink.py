"""Lines of many processes, each to its own file and all to the terminal under the name of their process.

A structured line is shortened for the terminal (its time and service are in the prefix); the file keeps it whole.
Files are cut over at 20 MB, one older file is kept. A full disk or a closed terminal loses lines, nothing else: what
could not be written is counted, and the file says so when it can be written again. A line that is no line of our log
(a traceback, a server's complaint) and repeats again and again is counted, too; our log does so itself. Whatever a line
says, it stays one line and cannot steer a terminal.
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
"""Of a line."""
KEPT_LINES = 30
COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}

STRUCTURED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\s+\[(\w+)\s*\]\s+(.*)$")
PLAIN_LEVEL = re.compile(r"\b(INFO|WARNING|ERROR|CRITICAL)\b")
SAME_LINES = 100
"""Raw lines that differ in numbers only, of one process: so many are written, and then …"""
SECONDS_PER_LINE = 3.0
"""… one more per so many seconds."""
MOST_KINDS = 1000
"""Kinds of raw line that are remembered per process, those seen last."""
COUNT_SECONDS = 60.0
"""From the first line left out to the line that says how many there were."""
NUMBER = re.compile(r"\d+")
SERVICE = re.compile(r"\s*\bservice=\S+")


class LogSink:
    """`write(name, line)` for one line without its newline. `console` None: files only."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self._folder = folder
        self._console = console
        self._files: dict[str, FileIO] = {}
        self._last: dict[str, deque[str]] = {}
        self._lost: dict[str, int] = {}
        self._repeats: dict[str, _Repeats] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: str) -> None:
        """To the file of `name` with the time in front, and to the terminal. Never fails."""
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
        """Write the counts that are due; whoever waits for lines calls this now and then."""
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
        """Lines of `name` that its file has not got and does not mention yet."""
        return self._lost.get(name, 0)

    def last_lines(self, name: str, count: int = 12) -> list[str]:
        """The newest lines of a process, for an error message."""
        return list(self._last.get(name, ()))[-count:]

    def close(self) -> None:
        """Write what was only counted, and close every file."""
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
    """Which raw lines of one process are written, and how many were not."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By line without its numbers: lines it may still have, as of when."""
        self._left_out = 0
        self._since = 0.0

    def admits(self, line: str, now: float) -> bool:
        """Whether to write `line`; it is counted otherwise."""
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
        """The line with the count, once it is time for it."""
        if not self._left_out or now - self._since < COUNT_SECONDS:
            return None
        left_out, self._left_out = self._left_out, 0
        return f"[{left_out:,} lines like earlier ones were left out]"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
