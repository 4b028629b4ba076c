"""Read a Markdown document for `scripts/check_docs.py`: its anchors, links, inline code and commands.

It does not parse reference links and indented code blocks, which this project does not use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^\s*(`{3,})(\w*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = ("sh", "bash")


@dataclass
class Document:
    """The references in a document; each is a pair (line number, text)."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    inline: list[tuple[int, str]] = field(default_factory=list)
    """Inline code without its backticks."""
    commands: list[tuple[int, str]] = field(default_factory=list)
    """Lines of code blocks with shell commands, without comments; a line that ends with a backslash is joined with the
    next one."""
    lines: list[tuple[int, str]] = field(default_factory=list)
    """All lines, including those of code blocks."""


def read_document(path: Path) -> Document:
    """Read the document at `path` and return its references."""
    found = Document(path)
    fence, language, begun = "", "", ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found.lines.append((number, line))
        mark = FENCE.match(line)
        if mark and not fence:
            fence, language = mark[1], mark[2]
        elif mark and mark[1] == fence:
            fence = ""
        elif fence and language in SHELL:
            text = begun + re.sub(r"(^|\s)#\s.*", "", line)
            begun = text.removesuffix("\\") if text.endswith("\\") else ""
            if text.strip() and not begun:
                found.commands.append((number, text.strip()))
        elif not fence:
            if line.startswith("#"):
                found.anchors.add(_anchor(line.lstrip("# ")))
            found.links += [(number, target) for target in LINK.findall(line)]
            found.inline += [(number, code) for code in INLINE.findall(line)]
    return found


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
