"""Prints the output of the command line: tables, JSON, messages, and formatted times and sizes.

Results go to stdout, messages and errors to stderr, so that results can be piped. Colours are used only on a terminal.
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
"""Characters that the module `json` does not escape, although they could control a terminal or cannot be encoded."""
SCALE = ((70, 130, 240), (150, 150, 150), (225, 85, 50))
"""Colours of modulation 0 (blue), 0.5 (grey) and 1 (vermilion). Their contrast is at least 2.9:1 on white and 5:1 on
black."""


def status_text(status: str) -> Text:
    """Return a job status as coloured text."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def modulation_style(modulation: float | None) -> str:
    """Return the colour of a modulation, from blue (0) through grey to vermilion (1); no colour for None."""
    if modulation is None:
        return ""
    position = 2 * min(max(modulation, 0.0), 1.0)
    low, high = (SCALE[0], SCALE[1]) if position <= 1 else (SCALE[1], SCALE[2])
    fraction = position if position <= 1 else position - 1
    red, green, blue = (round(a + fraction * (b - a)) for a, b in zip(low, high, strict=True))
    return f"rgb({red},{green},{blue})"


def table(*columns: str, title: str | None = None) -> WholeWordTable:
    """Return an empty table. Words in its cells, such as ids, are not broken across lines.

    A column whose name ends in `>` is right-aligned; the `>` is not shown.
    """
    rows = WholeWordTable(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    rows.min_width = len(title) if title else None
    for name in columns:
        rows.add_column(name.removesuffix(">"), justify="right" if name.endswith(">") else "left", overflow="fold")
    return rows


def print_json(value: Any) -> None:
    """Print a value as JSON. Characters that the output cannot show are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=not shows_unicode(out.encoding), default=str)
    out.out(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text), highlight=False)


def print_error(message: str) -> None:
    """Print an error message on stderr."""
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def format_time(time: datetime) -> str:
    """Return a time in the time zone of this machine, such as `11-29 14:03:05`."""
    return f"{time.astimezone():%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    """Return a duration as text, such as `42 s`, `3:05`, `2:03:05` or `5 d 2:03:05`; an empty string for None."""
    if seconds is None:
        return ""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {clock}" if days else clock


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Return the time since `moment`, such as `just now`, `5 min ago` or `2 d ago`; an empty string for None."""
    if moment is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    for limit, unit, name in ((86_400, 86_400, "d"), (3_600, 3_600, "h"), (60, 60, "min")):
        if seconds >= limit:
            return f"{int(seconds // unit)} {name} ago"
    return "just now"


def format_size(count: int | None) -> str:
    """Return a number of bytes as text, such as `1.5 MB`; an empty string for None."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return ""
