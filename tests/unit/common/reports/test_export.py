"""An exported report loads nothing, contains no active content, and has its charts at the right positions."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest

from common.reports import Bar, BarFigure, Chart, Figure, Line, LineFigure, html_document, markdown_document
from common.reports.svg import HEIGHT, LEFT, RIGHT, TOP, WIDTH, render_svg, ticks

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
TEXT = (
    "Before <script>alert(1)</script>\n\n```chart\nexperiments: [a]\nmetrics: [m]\n```\n\nAfter\n\n"
    "```chart\nkind: ablation\nexperiment: a\n```\n\n```chart\nkind: pie\n```\n"
)


def figure_of(chart: Chart) -> Figure:
    if chart.kind == "ablation":
        return BarFigure("Policies", [Bar("lear<ned", 0.5, 0.25, 0.75)], missing=["More is <missing>."])
    return LineFigure("Lo<ss", [Line("tr&ain", [1, 2, 3], [3.0, 2.0, 1.0])])


def page() -> str:
    return html_document("Title <b>", TEXT, figure_of, made_at=NOON, changed_at=NOON)


def test_the_page_is_one_file_that_loads_and_runs_nothing() -> None:
    html = page()
    assert "<script" not in html and " style=" not in html and "<img" not in html and "<link" not in html
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", html))
    assert re.findall(r"(?:src|href)=", html) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert policy and style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1].replace("&#x27;", "'").startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "url(" not in style[1] and "@import" not in style[1]
    assert "prefers-color-scheme:dark" in style[1] and "@media print" in style[1]


def test_everything_from_outside_is_escaped() -> None:
    html = page()
    for text in (
        "Title &lt;b&gt;",
        "Lo&lt;ss",
        "tr&amp;ain",
        "lear&lt;ned",
        "More is &lt;missing&gt;.",
        "&lt;script&gt;",
    ):
        assert text in html
    assert "Line 15: kind" in html and "pie" in html


def test_the_drawing_puts_every_point_where_it_belongs() -> None:
    figure = LineFigure("L", [Line("a", [0, 5, 10], [0.0, 1.0, 0.5])], span=(0.0, 1.0))
    svg = ET.fromstring(render_svg(figure, "what it is"))
    assert svg.attrib["aria-label"] == "what it is"
    path = next(element.attrib["d"] for element in svg if element.attrib.get("class", "").startswith("line"))
    found = [tuple(map(float, pair.split())) for pair in path.removeprefix("M").split("L")]
    right, bottom = WIDTH - RIGHT, HEIGHT - 38
    middle = (TOP + bottom) / 2
    assert found == [(LEFT, bottom), (pytest.approx((LEFT + right) / 2, abs=0.1), TOP), (right, middle)]


def test_a_logarithmic_axis_has_equal_steps_and_leaves_out_what_is_not_above_zero() -> None:
    figure = LineFigure("L", [Line("a", [0, 1, 2, 3], [1.0, 10.0, 0.0, 100.0]), Line("b", [0], [-1.0])], log=True)
    svg = render_svg(figure, "x")
    path = re.search(r'class="line c1" d="M([^"]+)"', svg)
    assert path and "line c2" not in svg
    heights = [float(pair.split()[1]) for pair in path[1].split("L")]
    assert len(heights) == 3
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_level_line_and_a_single_point_are_drawn(value: float) -> None:
    for x in ([1], [1, 2]):
        ET.fromstring(render_svg(LineFigure("L", [Line("a", x, [value] * len(x))]), "x"))
        ET.fromstring(render_svg(LineFigure("L", [Line("a", x, [abs(value) + 1] * len(x))], log=True), "x"))
    ET.fromstring(render_svg(BarFigure("B", [Bar("a", value)]), "x"))
    assert render_svg(LineFigure("L"), "x") == "" and render_svg(BarFigure("B"), "x") == ""


def test_bars_begin_at_zero_and_carry_their_interval() -> None:
    svg = render_svg(BarFigure("B", [Bar("up", 2.0, 1.0, 3.0), Bar("down", -1.0, -2.0, 0.5)]), "x")
    zero = re.search(r'class="zero" d="M([\d.]+)', svg)
    rects = re.findall(r'<rect class="c\d" x="([\d.]+)" y="\d+" width="([\d.]+)"', svg)
    whiskers = re.findall(r'class="whisker" d="M([\d.]+) \d+H([\d.]+)', svg)
    assert zero and len(rects) == 2
    at = float(zero[1])
    unit = float(rects[0][1]) / 2
    assert float(rects[0][0]) == pytest.approx(at)
    assert float(rects[1][0]) + float(rects[1][1]) == pytest.approx(at, abs=0.15)
    for (low, high), (begin, end) in zip(whiskers, [(1.0, 3.0), (-2.0, 0.5)], strict=True):
        assert float(low) == pytest.approx(at + begin * unit, abs=0.3)
        assert float(high) == pytest.approx(at + end * unit, abs=0.3)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.13, 0.29) == [0.15, 0.2, 0.25]
    assert ticks(-1, 1500, 6) == [0, 500, 1000, 1500]
    assert ticks(3, 3) == [3]


def test_markdown_keeps_the_blocks_and_adds_where_lines_end() -> None:
    text = markdown_document("Title *x*", TEXT, figure_of)
    assert text.startswith("# Title \\*x\\*\n\nBefore <script>")
    assert "```chart\nexperiments: [a]\nmetrics: [m]\n```\n\n|  | last step | last value | lowest | highest |" in text
    assert "| tr\\&ain | 3 | 1 | 1 | 3 |" in text
    assert "| lear\\<ned | 0.5 | 0.25 to 0.75 |\n\nMore is \\<missing\\>." in text
    assert text.index("last step") < text.index("After") < text.index("lear")
    assert text.endswith("```chart\nkind: pie\n```\n")
