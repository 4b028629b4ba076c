"""How numbers, times and colours are printed."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta

import pytest

from common.terminal import Terminal
from common.words import plural, span, with_article
from services.cli.output import age, duration, format_size, format_time, modulation_style, table
from tidal_client.vocabulary import JobType


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.2, "0 s"),
        (59.4, "59 s"),
        (60, "1:00"),
        (185, "3:05"),
        (7385, "2:03:05"),
        (-3, "0 s"),
        (2_634_120, "30 d 11:42:00"),
        (86_400, "1 d 0:00:00"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (2_380_451, "2.4 MB"), (5e12, "5000.0 GB")]
)
def test_sizes(count: int | None, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [(timedelta(seconds=5), "just now"), (timedelta(minutes=5), "5 min ago"), (timedelta(days=2, hours=5), "2 d ago")],
)
def test_ages(passed: timedelta, text: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert age(now - passed, now) == text


def test_modulation_runs_from_blue_through_grey_to_red() -> None:
    assert modulation_style(0.0) == modulation_style(-1.0) == "rgb(70,130,240)"
    assert modulation_style(0.25) == "rgb(110,140,195)"
    assert modulation_style(0.5) == "rgb(150,150,150)"
    assert modulation_style(1.0) == modulation_style(7.0) == "rgb(225,85,50)"
    assert modulation_style(None) == ""


EXPERIMENT = "20260131-120000-commit_ab12cd3-config_0123456789"
JOB = "job_01k2m3n4p5q6r7s8t9vwxyzabc"
CHECKPOINT = f"{EXPERIMENT}/checkpoints/step-000000001"


def printed(*, width: int | None) -> list[str]:
    """Print a table and a sentence to a terminal of this width, or to a pipe if `width` is None."""
    screen = io.StringIO()
    terminal = Terminal(file=screen, width=width, force_terminal=width is not None, color_system=None)
    made = table("job", "checkpoint", "name", "tokens>", title=JOB)
    for number in range(2):
        made.add_row(f"{JOB}{number}", CHECKPOINT, "a long name " * 12, "1,234")
    terminal.print(made)
    terminal.print(f"Submitted {JOB} for {EXPERIMENT}, and some more words that would not fit.")
    return screen.getvalue().split("\n")


def test_a_table_in_a_pipe_has_one_line_per_row_and_nothing_is_left_out() -> None:
    lines = printed(width=None)
    found = [line for line in lines if CHECKPOINT in line]
    assert len(found) == 2
    for number, line in enumerate(found):
        assert f"{JOB}{number} " in line and "a long name " * 12 in line and "1,234" in line
    assert lines[-2] == f"Submitted {JOB} for {EXPERIMENT}, and some more words that would not fit."


@pytest.mark.parametrize("width", [20, 40, 80, 120, 160, 200])
def test_a_terminal_breaks_the_lines_of_a_table_between_words_only(width: int) -> None:
    lines = printed(width=width)
    end = next(number for number, line in enumerate(lines) if "Submitted" in line)
    words = {word for line in lines[:end] for word in line.split() if set(word) != {"─"}}
    ids = {JOB, f"{JOB}0", f"{JOB}1", CHECKPOINT}
    assert words == {"job", "checkpoint", "tokens", "a", "long", "name", "1,234", *ids}
    if width > sum(map(len, (f"{JOB}0", CHECKPOINT, "long", "1,234"))) + 10:
        assert max(map(len, lines)) <= width


def test_articles_plurals_and_lengths_of_time() -> None:
    kinds = ["lm-training", "rl-training", "evaluation", "ablation", "analysis", "headroom", "dataset"]
    assert [with_article(kind).split()[0] for kind in kinds] == ["an", "an", "an", "an", "an", "a", "a"]
    assert set(kinds) == set(JobType)
    counts = [plural(count, "worker") for count in (0, 1, 2, 1234)]
    assert counts == ["0 workers", "1 worker", "2 workers", "1,234 workers"]
    given = (-1, 5, 119, 150, 9000, 2_634_120, timedelta(days=3), timedelta(days=26_695))
    lengths = [span(seconds) for seconds in given]
    assert lengths == ["0 s", "5 s", "119 s", "2 min", "2.5 h", "30.5 days", "3.0 days", "73 years"]


def test_times_are_shown_in_the_time_zone_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert format_time(datetime(2026, 1, 31, 20, 0, 5, tzinfo=UTC)) == "02-01 01:30:05"
    finally:
        monkeypatch.undo()
        time.tzset()
