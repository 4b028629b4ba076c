"""Formats numbers, times and untrusted texts for Markdown, and escapes what could be read as markup."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

from common.words import plural

__all__ = [
    "clipped",
    "code",
    "count",
    "format_size",
    "format_time",
    "literal",
    "markdown_table",
    "number",
    "plural",
    "value",
]

NONE = "–"
_LIST = re.compile(r"^(\d*)([-+=.)])")
"""Beginnings of lines that Markdown reads as a list item or as the underline of a heading."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#])")


def number(value: object, digits: int = 4, *, signed: bool = False) -> str:
    """Format a number with `digits` significant digits; large numbers as `1,234`, extreme ones with an exponent.

    A value that is not a finite number, which another program may have written, becomes an en dash.
    """
    if not _is_finite(value):
        return NONE
    magnitude = abs(value)
    if magnitude != 0 and (magnitude >= 1e6 or magnitude < 1e-3):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    elif magnitude >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    text = "0" if text in ("0", "-0") else text.replace("-", "−", 1) if text.startswith("-") else text
    return f"+{text}" if signed and value > 0 else text


def count(value: object) -> str:
    """Format a number as an integer with grouped thousands; anything else becomes an en dash."""
    return f"{round(value):,}" if _is_finite(value) else NONE


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def format_size(value: int | None) -> str:
    """Format a number of bytes, such as `1.5 MB`; None becomes an en dash."""
    if value is None:
        return NONE
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return NONE


def format_time(value: datetime | None) -> str:
    """Format a time, such as `2026-09-01 12:00 UTC`; None becomes an en dash."""
    return NONE if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def literal(text: str, most: int = 2000) -> str:
    """Return the first `most` characters of a text on one line, escaped so that Markdown shows them literally."""
    escaped = _SPECIAL.sub(r"\\\1", clipped(text, most))
    return _LIST.sub(r"\1\\\2", escaped)


def clipped(text: str, most: int) -> str:
    """Return the text on one line, cut after `most` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def code(text: str, *, cell: bool = False) -> str:
    """Return a text as inline code on one line. With `cell`, bars are escaped, as they would end a table cell."""
    flat = clipped(text, 300)
    flat = flat.replace("|", "\\|") if cell else flat
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    space = " " if flat.startswith("`") or flat.endswith("`") or not flat else ""
    return f"{fence}{space}{flat}{space}{fence}"


def value(item: Any) -> str:
    """Format the value of a setting for a table cell: as JSON, but strings without quotes."""
    return code(item if isinstance(item, str) else json.dumps(item, ensure_ascii=False), cell=True)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return a Markdown table. The cells contain Markdown; `right` holds the indices of the right-aligned columns."""
    numeric = set(right)
    marks = ["--:" if i in numeric else "---" for i in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
