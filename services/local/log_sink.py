"""Writes the output lines of all processes to one log file per process and to the terminal.

On the terminal, each line begins with the name of its process. Structured lines are shortened there, because the prefix
already contains time and service; the file contains the complete line. A file is rotated at 20 MB, and one older file
is kept.

A full disk or a closed terminal causes no error. Lines that cannot be written to a file are counted, and the count is
written once the file can be written again. Repeated raw lines, such as tracebacks and messages of the servers, are
limited and counted. Structured lines are not limited here, because `common.log_repeats` does this in the process that
writes them. Every line is escaped, so that it stays one line and cannot control the terminal.
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
"""Maximum number of characters of a line; the rest of a longer line is cut off."""
KEPT_LINES = 30
COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}

STRUCTURED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\s+\[(\w+)\s*\]\s+(.*)$")
PLAIN_LEVEL = re.compile(r"\b(INFO|WARNING|ERROR|CRITICAL)\b")
SAME_LINES = 100
"""Number of similar raw lines of one process that may be written at once.

Lines are similar if they differ only in numbers.
"""
SECONDS_PER_LINE = 3.0
"""After `SAME_LINES` similar lines, one more may be written each time this number of seconds has passed."""
MOST_KINDS = 1000
"""Maximum number of groups of similar raw lines that are remembered per process; beyond it, the oldest is dropped."""
COUNT_SECONDS = 60.0
"""Delay in seconds from the first line that is left out to the line with the number of lines left out."""
NUMBER = re.compile(r"\d+")
SERVICE = re.compile(r"\s*\bservice=\S+")


class LogSink:
    """Writes the lines of processes to files in `folder`, and to a terminal unless `console` is None."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self._folder = folder
        self._console = console
        self._files: dict[str, FileIO] = {}
        self._last: dict[str, deque[str]] = {}
        self._lost: dict[str, int] = {}
        self._repeats: dict[str, _Repeats] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: str) -> None:
        """Write `line`, given without its newline, to the log file of the process `name` and to the terminal.

        A failed write raises no error.
        """
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
        """Write the counts of lines that were left out, if it is time.

        Call this regularly, because no further line may arrive.
        """
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
        """Return the number of lines of the process `name` that could not be written to its file.

        Once this number has been written to the file, counting begins again at 0.
        """
        return self._lost.get(name, 0)

    def last_lines(self, name: str, count: int = 12) -> list[str]:
        """Return the newest lines of the process `name`, for an error message."""
        return list(self._last.get(name, ()))[-count:]

    def close(self) -> None:
        """Write the remaining counts of lines that were left out, and close all files."""
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
        # The file is unbuffered. With a buffer that cannot be flushed, every later write would fail as well.
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
    """Limits the repeated raw lines of one process, and counts the lines that are left out."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """{line with its numbers replaced: (how many more such lines may be written, time when this was computed)}."""
        self._left_out = 0
        self._since = 0.0

    def admits(self, line: str, now: float) -> bool:
        """Return whether `line` may be written; otherwise count it as left out."""
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
        """Return a line with the number of lines that were left out, or None if it is not yet time to write it."""
        if not self._left_out or now - self._since < COUNT_SECONDS:
            return None
        left_out, self._left_out = self._left_out, 0
        return f"[{left_out:,} lines like earlier ones were left out]"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
