"""Exports a report as a single HTML file, or as Markdown with a table of values after each chart.

The HTML page has no script and loads nothing; its content security policy allows only its own style sheet. It follows
the light or dark theme of the reader's system and can be printed. The caller passes a function `figure_of`, which reads
the data of a chart.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from html import escape

from common.reports.chart_blocks import Chart
from common.reports.figures import Figure, LineFigure, end_values
from common.reports.markdown import ChartPart, HtmlPart, ProblemPart, render_parts
from common.reports.svg import render_svg
from common.reports.words import format_time, literal, markdown_table

FigureOf = Callable[[Chart], Figure]
COLOURS = (
    ("#0b7285", "#4cc9d6"),
    ("#c2410c", "#ff9a62"),
    ("#6d4bc3", "#b39cf5"),
    ("#3f7d20", "#8fd16a"),
    ("#b5447e", "#f08fc0"),
    ("#946200", "#e0b94a"),
    ("#2f5fc4", "#86aef7"),
    ("#5b6672", "#a9b6c0"),
)
"""Colours of the lines in the light and in the dark theme; the dashboard uses the same ones."""
_DARK = (
    "--paper:#0d1316;--surface:#141c20;--line:#263238;--ink:#e4ecee;--soft:#b2bfc5;--faint:#8d9da5;--accent:#5cc8cd;"
)
_LIGHT = "--paper:#f5f7f7;--surface:#fff;--line:#dde4e5;--ink:#12202a;--soft:#44545f;--faint:#5a6974;--accent:#0b6470;"


def _palette(theme: int) -> str:
    return "".join(f"--c{at}:{pair[theme]};" for at, pair in enumerate(COLOURS, start=1))


STYLE = (
    f":root{{color-scheme:light dark;{_LIGHT}{_palette(0)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}{_palette(1)}}}}}"
    + """
*{box-sizing:border-box}
body{margin:0;padding:40px 20px 64px;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,
"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:820px;margin:0 auto}
h1{font-size:1.9rem;line-height:1.2;letter-spacing:-.02em;margin:0 0 .3em}
h2{font-size:1.3rem;margin:2em 0 .5em;padding-top:.6em;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.6em 0 .4em}
p,ul,ol,blockquote,pre,figure,.table-wrap{margin:0 0 1em}
.about{color:var(--faint);font-size:.87rem;margin-bottom:2em}
a{color:var(--accent)}
code,pre{font-family:ui-monospace,Menlo,Consolas,"Liberation Mono",monospace;font-size:.88em}
code{overflow-wrap:anywhere}
td code{overflow-wrap:break-word}
pre{padding:12px 14px;overflow-x:auto;background:var(--surface);border:1px solid var(--line);border-radius:8px}
blockquote{padding:.1em 1em;border-left:3px solid var(--accent);color:var(--soft)}
blockquote p{margin:.5em 0}
.table-wrap{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{padding:6px 10px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--faint);font-weight:550;font-size:.8rem}
.num{text-align:right;white-space:nowrap}
figure{padding:16px;background:var(--surface);border:1px solid var(--line);border-radius:10px;break-inside:avoid}
figcaption{font-weight:620;margin-bottom:8px}
figure .table-wrap{margin:8px 0 0}
figure tr:last-child td{border-bottom:0}
figure p{margin:8px 0 0;color:var(--faint);font-size:.87rem}
svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--faint)}
svg .name{font-size:12px;fill:var(--ink)}
svg .end{text-anchor:end}
svg .mid{text-anchor:middle}
.grid{stroke:var(--line);fill:none}
.zero,.whisker{stroke:var(--ink);stroke-width:1.4;fill:none}
rect{fill-opacity:.55}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.swatch{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:8px;vertical-align:middle}
@media (max-width:560px){body{padding:24px 14px 48px}th,td{padding:6px}
svg text{font-size:16px}svg .name{font-size:15px}}
@media print{body{padding:0;background:#fff;font-size:11pt}h2,h3{break-after:avoid}tr{break-inside:avoid}}
"""
    + "".join(
        f".line.c{at}{{stroke:var(--c{at})}}rect.c{at},circle.c{at}{{fill:var(--c{at})}}i.c{at}{{background:var(--c{at})}}"
        for at in range(1, len(COLOURS) + 1)
    )
)
POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)


def html_document(
    title: str, markdown: str, figure_of: FigureOf, *, made_at: datetime, changed_at: datetime | None = None
) -> str:
    """Return the report as the text of one HTML file, which shows the time of the export, `made_at`."""
    body = []
    for part in render_parts(markdown, views=False):
        if isinstance(part, HtmlPart):
            body.append(part.html)
        elif isinstance(part, ChartPart):
            body.append(_figure(figure_of(part.chart)))
        else:
            body.append(f"<figure><p>Line {part.line}: {escape(part.message)}.</p></figure>")
    changed = f"Last changed {format_time(changed_at)}. " if changed_at else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="about">{changed}Exported from Tidal {format_time(made_at)}; '
        f"charts show what was stored then.</p>\n{''.join(body)}</main></body></html>\n"
    )


def markdown_document(title: str, markdown: str, figure_of: FigureOf) -> str:
    """Return the report as Markdown. The block of each chart is followed by a table of the chart's values."""
    lines = markdown.split("\n")
    at, out = 0, [f"# {literal(title)}", ""]
    for part in render_parts(markdown):
        if isinstance(part, HtmlPart | ProblemPart):
            continue
        end = part.line - 1 + part.source.count("\n") + 1
        out += lines[at:end]
        out += ["", *_values(figure_of(part.chart)), ""]
        at = end
    return "\n".join([*out, *lines[at:]]).rstrip() + "\n"


def _values(figure: Figure) -> list[str]:
    header, rows = end_values(figure)
    escaped = [[literal(row[0]), *row[1:]] for row in rows]
    found = markdown_table(header, escaped, right=range(1, len(header))).split("\n") if rows else []
    notes = [literal(note) for note in figure.missing]
    return [*found, *([""] if found and notes else []), *notes]


def _figure(figure: Figure) -> str:
    header, rows = end_values(figure)
    values = "; ".join(f"{row[0]}: {row[2] if isinstance(figure, LineFigure) else row[1]}" for row in rows)
    drawing = render_svg(figure, f"{figure.title}. {values}" if values else figure.title)
    parts = [f"<figure><figcaption>{escape(figure.title)}</figcaption>{drawing}"]
    if rows:
        head = "".join(f"<th{_aligned(at)}>{escape(text)}</th>" for at, text in enumerate(header))
        cells = "".join(
            f'<tr><td><i class="swatch c{at % 8 + 1}"></i>{escape(row[0])}</td>'
            + "".join(f'<td class="num">{escape(text)}</td>' for text in row[1:])
            + "</tr>"
            for at, row in enumerate(rows)
        )
        parts.append(
            f'<div class="table-wrap"><table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table></div>'
        )
    parts += [f"<p>{escape(note)}</p>" for note in figure.missing]
    return "".join([*parts, "</figure>"])


def _aligned(column: int) -> str:
    return ' class="num"' if column else ""
