"""A console for untrusted text: the text cannot control the terminal and is never cut in the middle of a word.

Texts of models, prompts, jobs and logs are printed literally. Markup has no effect, and a control character other than
newline and tab is shown as its Unicode picture (`\\x1b` as ␛), also in a pipe. Therefore no text can move the cursor,
clear the screen or rename the window. Output that is not a terminal is neither wrapped nor cut. On a terminal, tables
break lines only between words, so that an id can be copied. JSON output does not need this module, because JSON escapes
control characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "�"),
}
"""Maps the code points of control characters (C0, delete, C1) and unpaired surrogates to printable characters."""


UNLIMITED = 100_000
"""Width in columns that is assumed for an output that is not a terminal."""
LONGEST_WORD = 100
"""Largest number of characters of a word that is never broken in a table; ids and references are shorter."""


class WholeWordTable(Table):
    """A table that breaks lines only between words, and not at all if the output is not a terminal.

    If the words do not fit, the table is wider than the terminal. The terminal then continues a line in the next row of
    the screen, but text that is copied from it contains no line break.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Set the width of every column, then render the table as the base class does."""
        unlimited = options.update(width=UNLIMITED)
        measured_columns = [
            [Measurement.get(console, unlimited, cell) for cell in (column.header, *column.cells)]
            for column in self.columns
        ]
        largest = [max(cell.maximum for cell in cells) for cells in measured_columns]
        smallest = [
            min(full_width, LONGEST_WORD, max(cell.minimum for cell in cells))
            for full_width, cells in zip(largest, measured_columns, strict=True)
        ]
        borders = Measurement.get(console, unlimited, self).maximum - sum(largest)
        available = (options.max_width if console.is_terminal else UNLIMITED) - borders
        for column, width in zip(self.columns, _column_widths(available, smallest, largest), strict=True):
            column.width = width
        yield from super().__rich_console__(console, unlimited)


def _column_widths(available: int, smallest: list[int], largest: list[int]) -> list[int]:
    """Return column widths between `smallest` and `largest`.

    Columns that need the least width beyond `smallest` get it first.
    """
    widths, remaining = list(smallest), available - sum(smallest)
    order = sorted(range(len(largest)), key=lambda index: largest[index] - smallest[index])
    for place, index in enumerate(order):
        extra = min(largest[index] - smallest[index], max(remaining, 0) // (len(order) - place))
        widths[index] += extra
        remaining -= extra
    return widths


class Terminal(Console):
    """A console of the library rich that prints no control sequences other than its own (colours, progress bars)."""

    def __init__(self, **options: Any) -> None:
        """Create a `Console` whose markup, emoji codes and highlighting are off unless `options` turn them on."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as `Console.print` does, but never cut a table, and wrap text only on a terminal."""
        if any(isinstance(item, WholeWordTable) for item in objects):
            options.setdefault("crop", False)
        elif not self.is_terminal and all(isinstance(item, str | Text) for item in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, with their text made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """Make the text printable before rich measures it, so that column widths fit the printed text."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """Return `text` with pictures in place of all control characters except newline and tab."""
    return text if text.isprintable() else text.translate(_PICTURES)
