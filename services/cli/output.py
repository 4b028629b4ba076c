"""How the command line speaks: one console for results, one for remarks, and the few styles they share.

Results go to stdout, remarks and errors to stderr, so that output can be piped. Colour only on a terminal.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.text import Text

from common.streams import shows_unicode
from common.terminal import Terminal, WholeWordTable
from tidal_client.vocabulary import JobStatus

out = Terminal()
err = Terminal(stderr=True)

STATUS_STYLES: dict[str, str] = {
    JobStatus.PENDING: "yellow",
    JobStatus.PROVISIONING: "cyan",
    JobStatus.STARTING: "cyan",
    JobStatus.RUNNING: "bold cyan",
    JobStatus.COMPLETING: "cyan",
    JobStatus.STOPPING: "yellow",
    JobStatus.PAUSED: "yellow",
    JobStatus.STALE: "red",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "bold red",
    JobStatus.CANCELLED: "dim",
    "tokenising": "bold cyan",
    "ready": "green",
    "restarting": "red",
    "stopped": "dim",
}
_UNSAFE = re.compile("[\x7f-\x9f\ud800-\udfff]")
"""What json leaves unescaped and a terminal may obey, or cannot be written."""
SCALE = ((70, 130, 240), (150, 150, 150), (225, 85, 50))
"""Colours of modulation 0 (blue), 0.5 (grey) and 1 (vermilion); each at least 2.9:1 on white and 5:1 on black."""


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def modulation_style(modulation: float | None) -> str:
    """From blue (0) through grey to vermilion (1); none without a modulation."""
    if modulation is None:
        return ""
    share = 2 * min(max(modulation, 0.0), 1.0)
    low, high = (SCALE[0], SCALE[1]) if share <= 1 else (SCALE[1], SCALE[2])
    part = share if share <= 1 else share - 1
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(low, high, strict=True))
    return f"rgb({red},{green},{blue})"


def table(*columns: str, title: str | None = None) -> WholeWordTable:
    """An airy table; a column name that ends in `>` is aligned right. A word, such as an id, stays on one line."""
    made = WholeWordTable(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    made.min_width = len(title) if title else None
    for name in columns:
        made.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Machine-readable output, for `--json`; with the escapes of JSON where the output cannot show a character."""
    text = json.dumps(value, indent=2, ensure_ascii=not shows_unicode(out.encoding), default=str)
    out.out(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text), highlight=False)


def fail(message: str) -> None:
    """The one line of an error."""
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def moment(time: datetime) -> str:
    """`11-29 14:03:05` in the time zone of this machine."""
    return f"{time.astimezone():%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    """`42 s`, `3:05`, `2:03:05`, `5 d 2:03:05`; an empty string for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {clock}" if days else clock


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `2 d ago`."""
    if moment is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for limit, unit, name in ((86_400, 86_400, "d"), (3_600, 3_600, "h"), (60, 60, "min")):
        if seconds >= limit:
            return f"{int(seconds // unit)} {name} ago"
    return "just now"


def size(count: int | None) -> str:
    """`1.5 MB`; an empty string for None."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
