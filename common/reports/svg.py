"""Renders charts as SVG for a page without scripts.

Colours are CSS classes of the page, so that the drawing follows the page's light and dark themes and can be printed.
Coordinates are written with one decimal place. Titles, legends and tables are in `common.reports.document`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from common.reports.figures import BarFigure, Figure, Line, LineFigure
from common.reports.words import number

WIDTH = 760
HEIGHT = 280
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 10, 38
ROW = 34
"""Height of a bar together with the gap below it."""
NAMES = 190
"""Width of the column with the bars' names."""

Scale = Callable[[float], float]


def render_svg(figure: Figure, name: str) -> str:
    """Return an SVG element with the accessible name `name`, or an empty text if there is nothing to show."""
    if isinstance(figure, BarFigure):
        return _bars(figure, name) if figure.bars else ""
    lines = [(at, line) for at, line in enumerate(figure.lines) if any(_drawable(y, log=figure.log) for y in line.y)]
    return _lines(figure, lines, name) if lines else ""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return about `most` round numbers from `low` to `high`, at intervals of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def powers(low: float, high: float) -> list[float]:
    """Return the powers of ten from `low` to `high`, or [low, high] if the range contains fewer than two powers."""
    found = [10.0**at for at in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    return found if len(found) > 1 else [low, high]


def _drawable(y: float, *, log: bool) -> bool:
    return math.isfinite(y) and (y > 0 or not log)


def _lines(figure: LineFigure, lines: Sequence[tuple[int, Line]], name: str) -> str:
    ys = [y for _, line in lines for y in line.y if _drawable(y, log=figure.log)]
    low, high = min(ys), max(ys)
    if figure.span is not None and not figure.log:
        low, high = min(low, figure.span[0]), max(high, figure.span[1])
    elif not figure.log:
        room = (high - low or abs(high) or 1) * 0.05
        low, high = low - room, high + room
    elif low == high:
        low, high = low / 2, high * 2
    first, last = (end(x for _, line in lines for x in line.x) for end in (min, max))
    across = _scale(first, last if last > first else first + 1, LEFT, WIDTH - RIGHT)
    if figure.log:
        up = _logarithmic(low, high)
        marks = powers(low, high)
    else:
        up = _scale(low, high, HEIGHT - BOTTOM, TOP)
        marks = ticks(low, high)
    out = [_open(HEIGHT, name)]
    for mark in marks:
        y = up(mark)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="end" x="{LEFT - 7}" y="{y + 4:.1f}">{number(mark)}</text>')
    for mark in ticks(first, last):
        out.append(f'<text class="mid" x="{across(mark):.1f}" y="{HEIGHT - BOTTOM + 17}">{number(mark)}</text>')
    out.append(
        f'<text class="mid" x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 4}">{escape(figure.x_label)}</text>'
    )
    for at, line in lines:
        points = [(across(x), up(y)) for x, y in zip(line.x, line.y, strict=True) if _drawable(y, log=figure.log)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        out.append(f'<path class="line c{at % 8 + 1}" d="M{path}"/>')
        if len(points) < 24:
            out += [f'<circle class="c{at % 8 + 1}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points]
    return "".join([*out, "</svg>"])


def _bars(figure: BarFigure, name: str) -> str:
    ends = [end for bar in figure.bars for end in (bar.value, bar.low, bar.high, 0.0) if end is not None]
    low, high = min(ends), max(ends)
    room = (high - low or 1) * 0.05
    low, high = low - (room if low < 0 else 0), high + (room if high > 0 else 0)
    across = _scale(low, high if high > low else low + 1, NAMES, WIDTH - RIGHT)
    height = ROW * len(figure.bars) + 26
    out = [_open(height, name)]
    for mark in ticks(low, high):
        x = across(mark)
        out.append(f'<path class="grid" d="M{x:.1f} 0V{height - 22}"/>')
        out.append(f'<text class="mid" x="{x:.1f}" y="{height - 7}">{number(mark)}</text>')
    for at, bar in enumerate(figure.bars):
        y, colour = at * ROW + 6, f"c{at % 8 + 1}"
        begin, end = sorted((across(bar.value), across(0)))
        middle = y + 11
        out.append(f'<text class="end name" x="{NAMES - 10}" y="{middle + 4}">{escape(bar.label[:28])}</text>')
        out.append(f'<rect class="{colour}" x="{begin:.1f}" y="{y}" width="{max(end - begin, 0.5):.1f}" height="22"/>')
        if bar.low is not None and bar.high is not None:
            left, right = across(bar.low), across(bar.high)
            tips = f"M{left:.1f} {y + 5}v12M{right:.1f} {y + 5}v12"
            out.append(f'<path class="whisker" d="M{left:.1f} {middle}H{right:.1f}{tips}"/>')
    zero = across(0)
    out.append(f'<path class="zero" d="M{zero:.1f} 0V{height - 22}"/>')
    return "".join([*out, "</svg>"])


def _open(height: int, name: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">'


def _scale(low: float, high: float, begin: float, end: float) -> Scale:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _logarithmic(low: float, high: float) -> Scale:
    plain = _scale(math.log10(low), math.log10(high), HEIGHT - BOTTOM, TOP)
    return lambda value: plain(math.log10(value))
