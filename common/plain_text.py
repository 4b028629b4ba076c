"""Escapes text from outside, so that it can neither start a new line nor control a terminal.

Used for logs, which are read line by line and often on a terminal. Text that keeps its line breaks, such as generated
text, is escaped by `common.terminal`.
"""

from __future__ import annotations


def escaped(text: str, most: int | None = None) -> str:
    """Return the first `most` characters of `text`, unprintable ones as Python escapes (`\\x1b`, `\\n`, `\\u202e`)."""
    cut_off = 0 if most is None else len(text) - most
    if cut_off > 0:
        text = text[:most]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"{text}… ({cut_off:,} more characters)" if cut_off > 0 else text


def escaped_lines(text: str, indent: str = "") -> str:
    """Escape each line of `text` and indent it; line breaks are kept."""
    return "\n".join(indent + escaped(line.replace("\t", "    ")) for line in text.split("\n"))
