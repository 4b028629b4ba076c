"""Standard streams that take every text, whatever the terminal or pipe can show.

A character that the encoding of the output lacks is written as an escape such as `\\u2026`, instead of ending the
program in the middle of a text; half surrogates, which no encoding has, too. What comes in by a pipe is UTF-8. Entry
points call `accept_any_text` once, most of them through `common.logging.configure`.
"""

from __future__ import annotations

import io
import sys


def accept_any_text() -> None:
    """Change the error handling of this process's standard streams; safe to repeat."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.closed and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")


def shows_unicode(encoding: str) -> bool:
    """Whether an output of this encoding shows every character."""
    return encoding.lower().replace("-", "").startswith("utf")


def as_typed(argument: str) -> str:
    """An argument of the command line in UTF-8 where the locale could not decode it; as it is if it is not UTF-8."""
    try:
        return argument.encode("ascii", "surrogateescape").decode("utf-8") if not argument.isascii() else argument
    except UnicodeError:
        return argument
