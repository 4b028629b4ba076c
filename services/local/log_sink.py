"""Lines of many processes, each to its own file and all to the terminal under the name of their process.

A structured line is shortened for the terminal (its time and service are in the prefix); the file keeps it whole.
Files are cut over at 20 MB, one older file is kept.
"""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path
from typing import IO

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
        self._files: dict[str, IO[str]] = {}
        self._last: dict[str, deque[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, line: str) -> None:
        """To the file of `name` with the time in front, and to the terminal."""
        line = line.rstrip()
        if not line:
            return
        self._last.setdefault(name, deque(maxlen=KEPT_LINES)).append(line)
        file = self._file(name)
        file.write(line + "\n" if STRUCTURED.match(line) else f"{_now()} {line}\n")
        file.flush()
        if self._console is not None:
            self._console.print(self._for_terminal(name, line), soft_wrap=True)

    def last_lines(self, name: str, count: int = 12) -> list[str]:
        """The newest lines of a process, for an error message."""
        return list(self._last.get(name, ()))[-count:]

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, name: str) -> IO[str]:
        path = self._folder / f"{name}.log"
        file = self._files.get(name)
        if file is not None and file.tell() > MAX_BYTES:
            file.close()
            path.replace(path.with_suffix(".log.1"))
            file = None
        if file is None:
            file = self._files[name] = path.open("a", encoding="utf-8", errors="replace")
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
