"""Renders Markdown as a sequence of parts, which are safe HTML or charts.

The Markdown is CommonMark with tables and strikethrough. Raw HTML is shown as text, images become links, and links may
refer only to http, https, mailto and views of the dashboard (`#/…`). A chart is a fenced block `chart` that is not
indented. Saving, the dashboard and the export use the same parser. `common.reports.svg` draws the charts of an export.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from common.errors import InvalidInputError
from common.reports.chart_blocks import Chart, parse_chart

MAX_CHARTS = 40
"""Largest number of charts in one report."""
CHART = "chart"
_TARGETS = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)


@dataclass(frozen=True)
class HtmlPart:
    """A part of the text as HTML."""

    html: str


@dataclass(frozen=True)
class ChartPart:
    """A chart; `source` is the text of its block, including the fences."""

    chart: Chart
    line: int
    source: str


@dataclass(frozen=True)
class ProblemPart:
    """A block that does not describe a valid chart, and the reason."""

    message: str
    line: int
    source: str


Part = HtmlPart | ChartPart | ProblemPart


def render_parts(markdown: str, *, views: bool = True) -> list[Part]:
    """Return the parts of a report from its beginning to its end; raises no errors.

    With `views`, links to views of the dashboard are kept; otherwise, their text replaces them.
    """
    parser = _PARSERS[views]
    env: dict[str, Any] = {}
    tokens = parser.parse(markdown, env)
    lines = markdown.split("\n")
    parts: list[Part] = []
    begin, charts = 0, 0
    for at, token in enumerate(tokens):
        if not _is_chart(token) or token.level:
            continue
        charts += 1
        _add_html(parts, parser, tokens[begin:at], env)
        parts.append(_chart_part(token, lines, charts))
        begin = at + 1
    _add_html(parts, parser, tokens[begin:], env)
    return parts


def check_charts(markdown: str, *, location: str = "body.markdown") -> list[Chart]:
    """Return the charts of a report. Raises InvalidInputError that lists every invalid block with its line."""
    found = list(_blocks(markdown))
    problems = [part for part in found if isinstance(part, ProblemPart)]
    if problems:
        errors = [{"location": location, "message": f"line {part.line}: {part.message}"} for part in problems]
        raise InvalidInputError("; ".join(f"chart in {error['message']}" for error in errors[:3]), errors=errors)
    return [part.chart for part in found if isinstance(part, ChartPart)]


def _blocks(markdown: str) -> Iterator[ChartPart | ProblemPart]:
    lines = markdown.split("\n")
    number = 0
    for token in _PARSERS[True].parse(markdown, {}):
        if not _is_chart(token):
            continue
        number += 1
        if token.level:
            message = "a chart cannot be inside a list or a quotation; move it below, without indentation"
            yield ProblemPart(message, _line(token), "")
        else:
            yield _chart_part(token, lines, number)


def _is_chart(token: Token) -> bool:
    return token.type == "fence" and token.info.split()[:1] == [CHART]


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 1


def _chart_part(token: Token, lines: Sequence[str], number: int) -> ChartPart | ProblemPart:
    begin, end = token.map or (0, 0)
    source = "\n".join(lines[begin:end]).rstrip()
    if number > MAX_CHARTS:
        return ProblemPart(f"a report can contain at most {MAX_CHARTS} charts", begin + 1, source)
    try:
        return ChartPart(parse_chart(token.content), begin + 1, source)
    except ValueError as error:
        return ProblemPart(str(error), begin + 1, source)


def _add_html(parts: list[Part], parser: MarkdownIt, tokens: Sequence[Token], env: dict[str, Any]) -> None:
    html = parser.renderer.render(tokens, parser.options, env)
    if html.strip():
        parts.append(HtmlPart(html))


def _allowed(url: str) -> bool:
    return bool(_TARGETS.match(url.strip()))


def _link_open(self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
    """Render a link so that the browser does not send the address of this page (the referrer) to the linked site."""
    if not str(tokens[idx].attrGet("href") or "").startswith("#"):
        tokens[idx].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, idx, options, env)


def _table_open(*_: object) -> str:
    return '<div class="table-wrap"><table>\n'


def _table_close(*_: object) -> str:
    return "</table></div>\n"


def _cell(self: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
    """Render a cell with its alignment as a class, because the content security policy forbids inline styles."""
    aligned = str(tokens[idx].attrs.pop("style", ""))
    if aligned.endswith("right"):
        tokens[idx].attrSet("class", "num")
    return self.renderToken(tokens, idx, options, env)


def _make_parser(*, views: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    parser.validateLink = _allowed  # type: ignore[method-assign]
    for name, rule in (
        ("link_open", _link_open),
        ("table_open", _table_open),
        ("table_close", _table_close),
        ("th_open", _cell),
        ("td_open", _cell),
    ):
        parser.add_render_rule(name, rule)
    if not views:
        parser.core.ruler.push("no_views", _remove_view_links)
    return parser


def _remove_view_links(state: Any) -> None:
    """Replace links to views of the dashboard by their text, because these links do not work in an exported file."""
    for token in state.tokens:
        if token.type != "inline" or not token.children:
            continue
        kept, inside = [], False
        for child in token.children:
            if child.type == "link_open" and str(child.attrGet("href") or "").startswith("#"):
                inside = True
            elif child.type == "link_close" and inside:
                inside = False
            else:
                kept.append(child)
        token.children = kept


_PARSERS = {views: _make_parser(views=views) for views in (True, False)}
"""Maps each value of `views` to its parser. The parsers keep no state between texts, so threads can share them."""
