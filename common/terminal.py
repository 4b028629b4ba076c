"""A terminal that shows foreign text and never obeys it.

What models, prompts, names of jobs and logs say is printed as it is: markup in it is text, and a control character
other than newline and tab becomes its picture (`\\x1b` is ␛), in a pipe too, so that no text moves the cursor, clears
the screen or renames the window. Words stay whole: where the output is no terminal nothing is wrapped or cut, and on a
terminal tables break lines between words only, so that an id can be copied.
Leaves out: what is printed (`services.cli`), and JSON, which escapes such characters.
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
"""For C0, delete, C1; and half surrogates, which cannot be written."""


UNLIMITED = 100_000
"""Columns of an output that is no terminal."""
LONGEST_WORD = 100
"""A longer word of a table is folded on a terminal; ids and references are shorter."""


class WholeWordTable(Table):
    """A table that breaks lines between words only, and not at all where the output is no terminal.

    Where the words do not fit it becomes wider than the terminal, which then goes on in the next row of its screen
    without a line break in what is copied.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the width of every column, then render as `Table` does."""
        wide = options.update(width=UNLIMITED)
        ranges = [
            [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)] for column in self.columns
        ]
        most = [max(measured.maximum for measured in cells) for cells in ranges]
        least = [
            min(whole, LONGEST_WORD, max(measured.minimum for measured in cells))
            for whole, cells in zip(most, ranges, strict=True)
        ]
        borders = Measurement.get(console, wide, self).maximum - sum(most)
        room = (options.max_width if console.is_terminal else UNLIMITED) - borders
        for column, width in zip(self.columns, _shared(room, least, most), strict=True):
            column.width = width
        yield from super().__rich_console__(console, wide)


def _shared(room: int, least: list[int], most: list[int]) -> list[int]:
    """Widths between `least` and `most`; what the room leaves beyond `least` goes to the narrowest columns first."""
    widths, left = list(least), room - sum(least)
    waiting = sorted(range(len(most)), key=lambda index: most[index] - least[index])
    for place, index in enumerate(waiting):
        given = min(most[index] - least[index], max(left, 0) // (len(waiting) - place))
        widths[index] += given
        left -= given
    return widths


class Terminal(Console):
    """A console of rich whose own control sequences (colour, progress bars) are the only ones it writes."""

    def __init__(self, **options: Any) -> None:
        """As `Console`, but markup, emoji codes and highlighting are off unless asked for."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        """As `Console.print`; where the output is no terminal, text is not wrapped, and tables are not cut anywhere."""
        if any(isinstance(its, WholeWordTable) for its in objects):
            options.setdefault("crop", False)
        elif not self.is_terminal and all(isinstance(its, str | Text) for its in objects):
            options.setdefault("soft_wrap", True)
        super().print(*objects, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, their text printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`; printable here already, so that columns are measured as they will be."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """`text` with pictures for control characters, but for newline and tab."""
    return text if text.isprintable() else text.translate(_PICTURES)
