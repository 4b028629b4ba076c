"""What a chart shows, once its data are there: lines or bars, and what is missing. Also their end values as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.reports.words import count, number


@dataclass(frozen=True)
class Line:
    """One line; `x` rises."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class LineFigure:
    """Lines over one axis."""

    title: str
    lines: Sequence[Line] = ()
    x_label: str = "step"
    log: bool = False
    span: tuple[float, float] | None = None
    """What the vertical axis covers at least."""
    missing: Sequence[str] = ()
    """Sentences about what cannot be shown."""


@dataclass(frozen=True)
class Bar:
    """A mean with its interval."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BarFigure:
    """Bars from zero, with whiskers."""

    title: str
    bars: Sequence[Bar] = ()
    signed: bool = False
    missing: Sequence[str] = field(default_factory=tuple)


Figure = LineFigure | BarFigure


def end_values(figure: Figure) -> tuple[list[str], list[list[str]]]:
    """Header and rows: where each line ends, what each bar says."""
    if isinstance(figure, BarFigure):
        bars = [[its.label, number(its.value, signed=figure.signed), _interval(its)] for its in figure.bars]
        return ["", "mean", "95 % interval"], bars
    rows = [
        [its.label, count(its.x[-1]), number(its.y[-1]), number(min(its.y)), number(max(its.y))]
        for its in figure.lines
        if its.y
    ]
    return ["", f"last {figure.x_label}", "last value", "lowest", "highest"], rows


def _interval(bar: Bar) -> str:
    return "–" if bar.low is None or bar.high is None else f"{number(bar.low)} to {number(bar.high)}"
