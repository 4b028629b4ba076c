"""A terminal that shows foreign text and never obeys it.

What models, prompts, names of jobs and logs say is printed as it is: markup in it is text, and a control character
other than newline and tab becomes its picture (`\\x1b` is ␛), in a pipe too, so that no text moves the cursor, clears
the screen or renames the window. Leaves out: what is printed (`services.cli`), and JSON, which escapes such characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "␡",
    **dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "�"),
}
"""For C0, delete, C1; and half surrogates, which cannot be written."""


class Terminal(Console):
    """A console of rich whose own control sequences (colour, progress bars) are the only ones it writes."""

    def __init__(self, **options: Any) -> None:
        """As `Console`, but markup, emoji codes and highlighting are off unless asked for."""
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

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
