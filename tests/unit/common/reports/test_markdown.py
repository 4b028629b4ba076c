"""Markdown becomes HTML without active content; the tests check it with a parser that the renderer does not use."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from common.reports import ChartPart, HtmlPart, ProblemPart, render_parts
from common.reports.words import code, count, format_size, literal, markdown_table, number

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a <b onclick=alert(1)>b</b>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](java\\script:alert(1))",
    "[x]( javascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example/)",
    "[x][r]\n\n[r]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](http://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    '[x](https://a.example "\\" onmouseover=\\"alert(1)")',
    "```js\"onload='alert(1)'\nx\n```",
    "```chart</code><script>alert(1)</script>\nx\n```",
    "| a |\n|---|\n| <svg/onload=alert(1)> |",
    "<!-- --><style>*{display:none}</style>",
    "<a href='x'>\n\n</a>\n\n<iframe src=//evil.example></iframe>",
    "> <form action=//evil.example><button>",
    "[x](https://a.example/?q=<script>)",
]
TAGS = {"h1", "h2", "p", "a", "em", "strong", "s", "code", "pre", "ul", "ol", "li", "blockquote", "br", "div"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"a": {"href", "rel", "title"}, "div": {"class"}, "code": {"class"}, "td": {"class"}, "th": {"class"}}


class Seen(HTMLParser):
    """Collects all elements of an HTML text and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_in_a_text_can_act(text: str) -> None:
    html = "".join(part.html for part in render_parts(text) if isinstance(part, HtmlPart))
    for tag, attributes in Seen(html).found:
        assert tag in TAGS, html
        assert attributes.keys() <= ATTRIBUTES.get(tag, {"start"} if tag == "ol" else set()), html
        if "href" in attributes:
            assert (attributes["href"] or "").startswith(("http://", "https://", "mailto:", "#")), html


def test_what_markdown_means_is_shown() -> None:
    [part] = render_parts(
        "## A *b*\n\n1. one\n2. two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n~~no~~ [e](#/experiments/x)"
    )
    assert isinstance(part, HtmlPart)
    tags = [tag for tag, _ in Seen(part.html).found]
    assert tags[:3] == ["h2", "em", "ol"] and "s" in tags and "table" in tags
    assert ("td", {"class": "num"}) in Seen(part.html).found and "style" not in part.html
    assert ("a", {"href": "#/experiments/x"}) in Seen(part.html).found


def test_links_into_the_dashboard_are_text_in_a_file_and_others_stay() -> None:
    [part] = render_parts("[*one*](#/experiments/x) and [two](https://a.example)", views=False)
    assert isinstance(part, HtmlPart)
    assert Seen(part.html).found == [
        ("p", {}),
        ("em", {}),
        ("a", {"href": "https://a.example", "rel": "noopener noreferrer"}),
    ]


def test_charts_stand_between_the_pieces_of_text_in_their_order() -> None:
    text = "one [r]\n\n```chart\nexperiments: [a]\nmetrics: [m]\n```\ntwo\n\n```chart\nkind: pie\n```\n\n[r]: https://a.example"
    first, chart, second, problem = render_parts(text)
    # The link is defined after the chart.
    assert isinstance(first, HtmlPart) and 'href="https://a.example"' in first.html
    assert isinstance(chart, ChartPart) and (chart.line, chart.source) == (3, "\n".join(text.split("\n")[2:6]))
    assert isinstance(second, HtmlPart) and "two" in second.html
    assert isinstance(problem, ProblemPart) and problem.line == 9 and "pie" in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "a|b `c` *d* _e_ [f](g) <h> # i ~j~ & \\ ![k](l)",
        "```x\n> y\n- z",
        "| a |\n|--|",
        "- a",
        "1. a",
        "12) a",
        "---",
        "==",
    ],
)
def test_foreign_text_stays_text(text: str) -> None:
    [part] = render_parts(f"**{literal(text)}**\n\n{markdown_table(['x'], [[literal(text)]])}")
    assert isinstance(part, HtmlPart)
    seen = Seen(part.html)
    assert [tag for tag, _ in seen.found] == ["p", "strong", "div", "table", "thead", "tr", "th", "tbody", "tr", "td"]
    [with_code] = render_parts(f"{code(text)}\n\n{markdown_table(['x'], [[code(text, cell=True)]])}")
    assert isinstance(with_code, HtmlPart)
    assert [tag for tag, _ in Seen(with_code.html).found].count("code") == 2


def test_numbers_are_read_well() -> None:
    values = [0, 1.23456, -1.5, 1234.5, 1e7, 2.5e-5, float("nan"), float("inf"), None, "text", True]
    assert [number(value) for value in values] == [
        "0", "1.235", "−1.5", "1,234", "1.00e7", "2.50e-5", "–", "–", "–", "–", "–",
    ]  # fmt: skip
    assert (number(0.5, signed=True), number(-0.5, signed=True)) == ("+0.5", "−0.5")
    assert (count(1234567.4), count(None), format_size(1_500_000), format_size(12)) == (
        "1,234,567",
        "–",
        "1.5 MB",
        "12 B",
    )
