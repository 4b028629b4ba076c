"""Numbers, times and colours as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.cli.output import age, duration, modulation_style, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.2, "0 s"), (59.4, "59 s"), (60, "1:00"), (185, "3:05"), (7385, "2:03:05"), (-3, "0 s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (2_380_451, "2.4 MB"), (5e12, "5000.0 GB")]
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


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
