"""Lines of many processes, each to its own file and all to the terminal under the name of their process.

A structured line is shortened for the terminal (its time and service are in the prefix); the file keeps it whole.
Files are cut over at 20 MB, one older file is kept. A full disk or a closed terminal loses lines, nothing else: what
could not be written is counted, and the file says so when it can be written again.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections import deque
from contextlib import suppress
from io import FileIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

MAX_BYTES = 20_000_000
KEPT_LINES = 30
COLOURS = ("cyan", "magenta", "green", "blue", "yellow", "bright_cyan", "bright_magenta", "bright_green")
LEVEL_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red", "critical": "bold red"}

STRUCTURED = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\s+\[(\w+)\s*\]\s+(.*)$")
PLAIN_LEVEL = re.compile(r"\b(INFO|WARNING|ERROR|CRITICAL)\b")
SERVICE = re.compile(r"\s*\bservice=\S+")


class LogSink:
    """`write(name, line)` for one line without its newline. `console` None: files only."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self._folder = folder
        self._console = console
        self._files: dict[str, FileIO] = {}
        self._last: dict[str, deque[str]] = {}
        self._lost: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: str) -> None:
        """To the file of `name` with the time in front, and to the terminal. Never fails."""
        line = line.rstrip()
        if not line:
            return
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
        """Close every file."""
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


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
