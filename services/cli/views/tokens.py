"""Prints generated tokens coloured by their modulation, with a legend and a summary.

Blue means careful, vermilion means daring, and grey means a modulation between them. These colours can be distinguished
with every kind of colour blindness, and are readable on light and dark backgrounds. In a pipe, with NO_COLOR or with
--color never, the text has no colours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from rich.text import Text

from common.terminal import Terminal
from common.words import plural
from services.cli.output import modulation_style
from tidal_client import Generation
from tidal_client.vocabulary import GatingMode

LEGEND_STEPS = 11


class Color(StrEnum):
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


def console(color: Color, *, stderr: bool = False) -> Terminal:
    """Return a console with or without colours; `auto` means colours on a terminal unless NO_COLOR is set."""
    if color is Color.NEVER or (color is Color.AUTO and os.environ.get("NO_COLOR")):
        return Terminal(stderr=stderr, color_system=None)
    if color is Color.AUTO:
        return Terminal(stderr=stderr)
    exact = os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    return Terminal(
        stderr=stderr,
        force_terminal=True,
        no_color=False,
        color_system="truecolor" if exact else "256",
    )


class TokenView:
    """Prints a generation token by token. `count` is the number of tokens printed so far."""

    def __init__(self, color: Color, prompt: str, mode: str, *, on_first: Callable[[], None] = lambda: None) -> None:
        """`mode` is the gating mode. `on_first` is called before the first output."""
        self.out = console(color)
        self.err = console(color, stderr=True)
        self.count = 0
        self._prompt = prompt
        self._mode = mode
        self._on_first = on_first
        self._begun = False
        self._printed = ""

    def print_token(self, data: dict[str, Any]) -> None:
        """Print one token of the stream."""
        self._begin()
        self.count += 1
        self._print(str(data.get("text") or ""), modulation_style(data.get("modulation")))

    def print_reply(self, reply: Generation) -> None:
        """Print the part of a finished reply that has not been printed yet.

        The last characters may not have been streamed, because they could have been the beginning of a stop string.
        """
        self._begin()
        if not self._printed:
            for step in reply.trajectory:
                self.print_token(step)
        if reply.text.startswith(self._printed):
            self._print(reply.text[len(self._printed) :], "")

    def end_line(self) -> None:
        """End the line, if anything has been printed."""
        if self._begun:
            # The line break is written to the file directly, because after Ctrl-C the console may still buffer text
            # that it has already written, and would write it again.
            self.out.file.write("\n")
            self.out.file.flush()
            self._begun = False

    def print_summary(self, reply: Generation, source: str) -> None:
        """Print the number of tokens, the speed, the seed and the decoding parameters on stderr."""
        rate = 1000 * reply.tokens_generated / reply.elapsed_ms if reply.elapsed_ms else 0.0
        parts = [plural(reply.tokens_generated, "token"), f"{rate:.0f} tokens/s", *effective(reply, self._mode), source]
        if reply.truncated:
            parts.append(f"{plural(reply.truncated, 'token')} dropped from the context window")
        self.err.print(Text(" · ".join(parts), style="dim"), soft_wrap=True)

    def _begin(self) -> None:
        if self._begun:
            return
        self._on_first()
        self._begun = True
        if self._mode != GatingMode.NONE and self.out.color_system is not None:
            self.err.print(legend(), soft_wrap=True)
        self.out.print(Text(self._prompt, style="dim"), end="", soft_wrap=True)

    def _print(self, text: str, style: str) -> None:
        self._printed += text
        if text:
            self.out.print(Text(text, style=style), end="", soft_wrap=True)


def coloured(reply: Generation) -> Text:
    """Return the text of a reply with each token in the colour of its modulation."""
    if not reply.trajectory:
        return Text(reply.text)
    parts = [(str(step.get("text") or ""), modulation_style(step.get("modulation"))) for step in reply.trajectory]
    return Text.assemble(*parts)


def legend() -> Text:
    """Return a legend that shows the colours from modulation 0 to 1."""
    shades = [("■", modulation_style(step / (LEGEND_STEPS - 1))) for step in range(LEGEND_STEPS)]
    return Text.assemble(("modulation  0 careful ", "dim"), *shades, (" 1 daring", "dim"))


def effective(reply: Generation, mode: str) -> list[str]:
    """Return texts with the seed, the mode and the decoding parameters that the generation used."""
    values = reply.effective
    names = {"temperature": "temperature", "topK": "top-k", "topP": "top-p", "repetitionPenalty": "penalty"}
    given = [f"{name} {values[key]:.4g}" for key, name in names.items() if values.get(key) not in (None, 1.0)]
    words = [mode]
    if values.get("modulation") is not None:
        words[0] = f"{mode} {values['modulation']:.4g}"
    modulations = [step["modulation"] for step in reply.trajectory if step.get("modulation") is not None]
    if modulations and mode in (GatingMode.RANDOM, GatingMode.LEARNED):
        mean = sum(modulations) / len(modulations)
        given = [f"modulation {min(modulations):.2f} to {max(modulations):.2f}, mean {mean:.2f}"]
    if mode != GatingMode.NONE and values.get("gatesFed") is False:
        given.append("gates off, because they were not trained")
    if given:
        words.append(f"({', '.join(given)})")
    seed = [f"seed {values['seed']}"] if values.get("seed") is not None else []
    return [*seed, " ".join(words)]
