"""Renders the texts that a training generated every few steps, as one table of steps for each prompt."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from common.errors import InvalidInputError
from services.cli.output import table
from tidal_client.wire.experiment import SampleHistory


def sample_tables(history: SampleHistory, prompt: int | None = None) -> Sequence[Table]:
    """Return a table (step, text) for each prompt, or only for the prompt with the number `prompt`, counted from 1.

    Raises InvalidInputError if there is no prompt with this number.
    """
    prompts = list(dict.fromkeys(sample.prompt for row in history.rows for sample in row.samples))
    if prompt is not None and prompt > len(prompts):
        raise InvalidInputError(f"--prompt {prompt}: there are only {len(prompts)} prompts")
    chosen = prompts if prompt is None else prompts[prompt - 1 : prompt]
    return [_table(history, text) for text in chosen]


def _table(history: SampleHistory, prompt: str) -> Table:
    rows = table("step>", "text")
    rows.title = Text(prompt or "(new document)", style="bold")
    rows.title_justify = "left"
    for row in history.rows:
        for sample in row.samples:
            if sample.prompt == prompt:
                rows.add_row(f"{row.step:,}", Text(" ".join(sample.generated.split())))
    return rows
