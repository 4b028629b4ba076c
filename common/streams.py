"""Configures the standard streams so that no text can raise an encoding error.

A character that the encoding of the output lacks, such as half a surrogate pair, is written as an escape (`\\u2026`).
Input from a pipe is read as UTF-8. Entry points call `accept_any_text` once, most of them through
`common.logging.configure`.
"""

from __future__ import annotations

import io
import sys


def accept_any_text() -> None:
    """Change the error handling of this process's standard streams. Repeated calls do no harm."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.closed and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")


def shows_unicode(encoding: str) -> bool:
    """Return whether an output with this encoding can represent every character."""
    return encoding.lower().replace("-", "").startswith("utf")


def as_typed(argument: str) -> str:
    """Decode a command-line argument as UTF-8 if the encoding of the locale could not decode it.

    Any other argument is returned unchanged.
    """
    try:
        return argument.encode("ascii", "surrogateescape").decode("utf-8") if not argument.isascii() else argument
    except UnicodeError:
        return argument
