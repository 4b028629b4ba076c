"""Text of others on one line: nothing in it starts a new line, moves a cursor, colours or hides anything.

For logs, whose lines are read by line and often on a terminal. Leaves out text that keeps its line breaks, such as what
a model wrote (`common.terminal`).
"""

from __future__ import annotations


def escaped(text: str, most: int | None = None) -> str:
    """`text` with Python's escapes (`\\x1b`, `\\n`, `\\u202e`) for whatever is not printable, cut after `most`."""
    left_out = 0 if most is None else len(text) - most
    if left_out > 0:
        text = text[:most]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return f"{text}… ({left_out:,} more characters)" if left_out > 0 else text


def escaped_lines(text: str, indent: str = "") -> str:
    """The same for text of several lines, which stay apart; every line is indented."""
    return "\n".join(indent + escaped(line.replace("\t", "    ")) for line in text.split("\n"))
