"""Tokens are coloured where colours are wanted and plain elsewhere, and the summary shows the parameters."""

from __future__ import annotations

import re

import pytest

from services.cli.views.tokens import Color, TokenView, console, effective, legend
from tidal_client import Generation

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def reply(**fields: object) -> Generation:
    common = {"text": " a cat", "tokensGenerated": 2, "elapsedMs": 10.0, "finishReason": "length"}
    return Generation.model_validate({**common, **fields})


def shown(color: Color, mode: str = "fixed") -> None:
    view = TokenView(color, "There was", mode)
    view.print_token({"text": " a", "modulation": 0.0})
    view.print_token({"text": " cat", "modulation": 1.0})
    view.print_reply(reply(text=" a cat."))
    view.end_line()
    view.print_summary(reply(effective={"seed": 7}), "exp/final")


@pytest.mark.parametrize("mode", ["fixed", "none"])
def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    shown(Color.AUTO, mode)
    printed = capsys.readouterr()
    assert printed.out == "There was a cat.\n"
    assert printed.err == f"2 tokens · 200 tokens/s · seed 7 · {mode} · exp/final\n"


def test_colour_that_is_asked_for_goes_into_a_pipe_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("NO_COLOR", "1")  # the option --color has precedence over this variable
    shown(Color.ALWAYS)
    printed = capsys.readouterr()
    assert "\x1b[38;2;70;130;240m a\x1b[0m" in printed.out
    assert "\x1b[38;2;225;85;50m cat\x1b[0m" in printed.out
    assert ESCAPE.sub("", printed.out) == "There was a cat.\n"
    assert ESCAPE.sub("", printed.err).startswith("modulation  0 careful ■■■■■■■■■■■ 1 daring\n")


def test_a_terminal_gets_colours_without_no_color_and_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich treat the output as a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console(Color.AUTO).color_system is not None
    assert console(Color.NEVER).color_system is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert console(Color.AUTO).color_system is None


def test_colours_are_readable_on_white_and_on_black() -> None:
    def luminance(style: str) -> float:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (int(part) / 255 for part in re.findall(r"\d+", style))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    shades = [str(span.style) for span in legend().spans if "rgb" in str(span.style)]
    assert len(set(shades)) == 11
    for shade in shades:
        light = luminance(shade)
        assert 1.05 / (light + 0.05) >= 2.9 and (light + 0.05) / 0.05 >= 4.5, shade


def test_the_effective_parameters_are_described_in_words() -> None:
    plain = {"seed": 3, "temperature": 0.8, "topK": 50, "topP": 1.0, "repetitionPenalty": 1.2}
    assert effective(reply(effective=plain), "none") == ["seed 3", "none (temperature 0.8, top-k 50, penalty 1.2)"]
    fixed = {"modulation": 0.7, "temperature": 1.49, "gatesFed": False}
    assert effective(reply(effective=fixed), "fixed") == [
        "fixed 0.7 (temperature 1.49, gates off, because they were not trained)"
    ]
    sampled = [{"modulation": 0.25}, {"modulation": 0.75}]
    assert effective(reply(trajectory=sampled), "learned") == ["learned (modulation 0.25 to 0.75, mean 0.50)"]


def test_a_complete_reply_is_printed_like_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [{"text": " a", "modulation": 0.1}, {"text": " cat", "modulation": 0.9}]
    view = TokenView(Color.NEVER, "There was", "fixed")
    view.print_reply(reply(trajectory=steps))
    view.end_line()
    assert (capsys.readouterr().out, view.count) == ("There was a cat\n", 2)


@pytest.mark.parametrize("color", [Color.AUTO, Color.ALWAYS])
def test_neither_prompt_nor_model_commands_the_terminal(capsys: pytest.CaptureFixture[str], color: Color) -> None:
    steps = [{"text": "\x1b]0;owned\x07", "modulation": 0.1}, {"text": " x\x1b[2J\x9b1A\n\ty", "modulation": 0.9}]
    view = TokenView(color, "There\x1b[31m was", "fixed")
    for step in steps:
        view.print_token(step)
    view.print_reply(reply(text="\x1b]0;owned\x07 x\x1b[2J\x9b1A\n\ty\x1bz"))
    view.end_line()
    printed = capsys.readouterr().out
    plain = ESCAPE.sub("", printed) if color is Color.ALWAYS else printed
    assert plain.expandtabs() == "There␛[31m was␛]0;owned x␛[2J�1A\n        y␛z\n"
