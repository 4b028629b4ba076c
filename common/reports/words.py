"""Numbers, times and foreign texts inside Markdown: read well, and never taken for markup."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

from common.words import plural

__all__ = ["clipped", "code", "count", "literal", "moment", "number", "plural", "size", "table", "value"]

NONE = "–"
_LIST = re.compile(r"^(\d*)([-+=.)])")
"""What a line begins with when it is an item of a list, or an underline."""
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#])")


def number(value: object, digits: int = 4, *, signed: bool = False) -> str:
    """Four significant digits; `1,234` from a thousand on, an exponent for the very large and small.

    An en dash for what is no finite number: results may come from other programs.
    """
    if not _finite(value):
        return NONE
    size = abs(value)
    if size != 0 and (size >= 1e6 or size < 1e-3):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.{digits}g}"
    text = "0" if text in ("0", "-0") else text.replace("-", "−", 1) if text.startswith("-") else text
    return f"+{text}" if signed and value > 0 else text


def count(value: object) -> str:
    """A whole number, thousands grouped; an en dash for what is none."""
    return f"{round(value):,}" if _finite(value) else NONE


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def size(value: int | None) -> str:
    """`1.5 MB`."""
    if value is None:
        return NONE
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return NONE


def moment(value: datetime | None) -> str:
    """`2026-09-01 12:00 UTC`."""
    return NONE if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def literal(text: str, most: int = 2000) -> str:
    """Foreign text on one line, its first `most` characters, with nothing in it taken for markup."""
    escaped = _SPECIAL.sub(r"\\\1", clipped(text, most))
    return _LIST.sub(r"\1\\\2", escaped)


def clipped(text: str, most: int) -> str:
    """On one line, and no longer than `most` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def code(text: str, *, cell: bool = False) -> str:
    """Foreign text as code; `cell`: inside a table, where a bar would end the cell."""
    flat = clipped(text, 300)
    flat = flat.replace("|", "\\|") if cell else flat
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    space = " " if flat.startswith("`") or flat.endswith("`") or not flat else ""
    return f"{fence}{space}{flat}{space}{fence}"


def value(item: Any) -> str:
    """A setting as in JSON, strings without quotes, for a cell."""
    return code(item if isinstance(item, str) else json.dumps(item, ensure_ascii=False), cell=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table of Markdown; cells are Markdown already. `right`: columns aligned to the right."""
    numeric = set(right)
    marks = ["--:" if i in numeric else "---" for i in range(len(header))]
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
