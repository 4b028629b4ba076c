"""Shortens results to a token budget. What is left out is named, with a way to ask for it.

A language model pays for every token that it reads, and a training has millions of numbers. `summarize` therefore keeps
the shape of a result and shortens its long lists and texts, in steps, until the result fits.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

from tidal_client.vocabulary import utc_text

CHARACTERS_PER_TOKEN = 3
"""A cautious estimate: JSON with numbers and ids has 3 to 4 characters per token in common vocabularies."""
SMALLEST_BUDGET, DEFAULT_BUDGET, LARGEST_BUDGET = 200, 1500, 20_000
"""Bounds and default of the argument `max_tokens` of the tools."""
_LEVELS = ((10_000, 100_000), (300, 4000), (100, 2000), (50, 1000), (25, 500), (12, 250), (6, 120), (3, 60), (1, 30))
"""(longest list or mapping, longest text), from mild to strict."""
MOST_NAMES = 8
DIGITS = 6


def summarize(value: dict[str, Any], max_tokens: int = DEFAULT_BUDGET, *, hint: str = "") -> str:
    """Return `value` as JSON of at most about `max_tokens` tokens.

    If something is left out, the JSON has the keys `omitted` (what, and how much of it) and `more`, which explains how
    to get it: `hint`, or a larger `max_tokens`.
    """
    room = max_tokens * CHARACTERS_PER_TOKEN
    text = ""
    for items, characters in _LEVELS:
        omitted: list[str] = []
        short = _shortened(value, items, characters, "", omitted)
        if omitted:
            names = omitted[:MOST_NAMES] + (
                [f"and {len(omitted) - MOST_NAMES} more"] if len(omitted) > MOST_NAMES else []
            )
            short = {**short, "omitted": names, "more": hint or "call the tool again with a larger max_tokens"}
        text = to_json(short)
        if len(text) <= room:
            return text
    return text[: max(room - 1, 0)] + "…"


def select(value: Any, path: str | None) -> Any:
    """Return the part of a result at a dotted path, such as `policies.learned` or `samples.0`.

    Raises LookupError, which names the parts that exist, if there is none at this path.
    """
    if not path:
        return value
    keys = path.split(".")
    for depth, key in enumerate(keys):
        if isinstance(value, list) and key.lstrip("-").isdigit() and -len(value) <= int(key) < len(value):
            value = value[int(key)]
            continue
        # A key may contain a dot: try the rest of the path as one key.
        rest = ".".join(keys[depth:])
        if isinstance(value, dict) and rest in value:
            return value[rest]
        if not isinstance(value, dict) or key not in value:
            names = (
                ", ".join(map(str, value))
                if isinstance(value, dict)
                else f"0 to {len(value) - 1}"
                if isinstance(value, list)
                else "nothing"
            )
            raise LookupError(
                f"there is no {path!r}; at {'.'.join(keys[:depth]) or 'the top'} there are: {names[:500]}"
            )
        value = value[key]
    return value


def to_json(value: Any) -> str:
    """Return compact JSON. NaN and infinity become null."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_as_text, allow_nan=False)


def _as_text(value: Any) -> str:
    return utc_text(value) if isinstance(value, datetime) else str(value)


def _shortened(value: Any, items: int, characters: int, path: str, omitted: list[str]) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, str) and len(value) > characters:
        omitted.append(f"{path}: {characters} of {len(value):,} characters")
        return f"{value[:characters]}…"
    if isinstance(value, list | tuple):
        kept = list(value)
        if len(kept) > items:
            omitted.append(f"{path}: {items} of {len(kept):,} entries")
            kept = kept[:items]
        return [_shortened(item, items, characters, f"{path}.{n}".lstrip("."), omitted) for n, item in enumerate(kept)]
    if isinstance(value, dict):
        names = list(value)
        # The top level is the tool's own reply, whose keys are few.
        if path and len(names) > 2 * items:
            omitted.append(f"{path}: {2 * items} of {len(names):,} keys")
            names = names[: 2 * items]
        return {
            str(name): _shortened(value[name], items, characters, f"{path}.{name}".lstrip("."), omitted)
            for name in names
        }
    return value
