"""The contents of charts: lines or bars with labels. `end_values` returns the values of a chart as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.reports.words import count, number


@dataclass(frozen=True)
class Line:
    """A line through the points (x, y); `x` increases."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class LineFigure:
    """A line chart."""

    title: str
    lines: Sequence[Line] = ()
    x_label: str = "step"
    log: bool = False
    span: tuple[float, float] | None = None
    """Range that the vertical axis must at least cover; None if the data determine it."""
    missing: Sequence[str] = ()
    """Sentences that name the data that cannot be shown."""


@dataclass(frozen=True)
class Bar:
    """A bar that shows a mean; `low` and `high` are the ends of its confidence interval, or None."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BarFigure:
    """A bar chart whose bars start at zero; whiskers show the intervals."""

    title: str
    bars: Sequence[Bar] = ()
    signed: bool = False
    missing: Sequence[str] = field(default_factory=tuple)


Figure = LineFigure | BarFigure


def end_values(figure: Figure) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table: last value and range of each line, or value and interval of each bar."""
    if isinstance(figure, BarFigure):
        bars = [[bar.label, number(bar.value, signed=figure.signed), _interval(bar)] for bar in figure.bars]
        return ["", "mean", "95 % interval"], bars
    rows = [
        [line.label, count(line.x[-1]), number(line.y[-1]), number(min(line.y)), number(max(line.y))]
        for line in figure.lines
        if line.y
    ]
    return ["", f"last {figure.x_label}", "last value", "lowest", "highest"], rows


def _interval(bar: Bar) -> str:
    return "–" if bar.low is None or bar.high is None else f"{number(bar.low)} to {number(bar.high)}"
