"""Printed text cannot control the terminal, and is otherwise printed unchanged."""

from __future__ import annotations

import io
import unicodedata

import pytest
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from common.terminal import Terminal, printable

HOSTILE = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31md\x7fe\r\bf[red]g[/x] :cat: é\ud800"


def controls(text: str) -> list[str]:
    """Characters that could control a terminal or that cannot be encoded."""
    return [
        character for character in text if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    ]


@pytest.mark.parametrize("form", ["str", "Text", "table", "cell", "title", "out", "status", "progress"])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_control_character_of_a_text_is_written(form: str, is_terminal: bool) -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=is_terminal, color_system=None, width=200, legacy_windows=False)
    if form == "str":
        terminal.print(HOSTILE)
    elif form == "Text":
        terminal.print(Text(HOSTILE, style="bold"), soft_wrap=True)
    elif form == "out":
        terminal.out(HOSTILE)
    elif form == "table":
        rows = Table("name", HOSTILE)
        rows.add_row(HOSTILE, HOSTILE)
        terminal.print(rows)
    elif form == "cell":
        rows = Table("", width=150)
        rows.add_row(Text(HOSTILE))
        terminal.print(rows)
    elif form == "title":
        terminal.print(Table("name", title=HOSTILE, width=150))
    elif form == "status":
        with terminal.status(Text(HOSTILE)):
            terminal.print(HOSTILE)
    else:
        with Progress(TextColumn("{task.description}", markup=False), console=terminal) as progress:
            progress.add_task(printable(HOSTILE), total=1)
    written = file.getvalue()
    ours = ("\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A", "\r")
    # Control sequences that the console itself writes for a progress bar.
    if is_terminal and form in ("status", "progress"):
        for sequence in ours:
            written = written.replace(sequence, "")
    assert controls(written) == []
    assert all(word in written for word in ("a␛]0;owned", "b␛[2Jc", "31md␡e", "[red]g[/x] :cat: é"))


def test_printable_keeps_everything_else() -> None:
    kept = "Once\n\tupon “a” time — 🐈‍⬛ é 漢\u00a0ﬁ ␛"
    assert printable(kept) == kept
    assert printable("\x00\x1b\x1f\x7f\x85") == "␀␛␟␡�"
    assert printable(escape("[b]")) == escape("[b]")


def test_colours_are_still_colours() -> None:
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, color_system="truecolor", width=80).print(Text("x\x1b[0m", style="red"))
    assert file.getvalue() == "\x1b[31mx␛[0m\x1b[0m\n"
