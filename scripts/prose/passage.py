"""The type `Passage`, one piece of prose in the code, and the pattern that decides whether a string is prose."""

from __future__ import annotations

import re
from dataclasses import dataclass

TWO_WORDS = re.compile(r"[^\W\d_]{2,}[,.:;]? [^\W\d_]+")
"""A string is prose only if it contains two words with a space between them."""


@dataclass(frozen=True, order=True)
class Passage:
    """One piece of prose and the place where it begins."""

    file: str
    """Path relative to the root of the tree."""
    line: int
    kind: str
    """One of docstring, comment, log, error, help, output, text and dashboard."""
    text: str
