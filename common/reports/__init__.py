"""Reports: Markdown with charts as fenced blocks. Pure functions from text and data to text; no I/O, no database.

    parts = render_parts(markdown)              safe HTML and chart specifications, for the dashboard
    check_charts(markdown)                      InvalidInputError that names the line
    html_document(title, markdown, figure_of)   one file that opens anywhere
    generate("experiment-overview", facts)      a report from what is stored

Leaves out: reading what the charts show (`services.api.operations`).
"""

from common.reports.chart_blocks import (
    AblationChart,
    Chart,
    MetricsChart,
    SweepChart,
    TrajectoryChart,
    analyses_of,
    experiments_of,
)
from common.reports.document import html_document, markdown_document
from common.reports.facts import AnalysisFacts, CheckpointFacts, Ends, ExperimentFacts
from common.reports.figures import Bar, BarFigure, Figure, Line, LineFigure
from common.reports.markdown import ChartPart, HtmlPart, Part, ProblemPart, check_charts, render_parts
from common.reports.patterns import PATTERNS, Pattern, generate

__all__ = [
    "PATTERNS",
    "AblationChart",
    "AnalysisFacts",
    "Bar",
    "BarFigure",
    "Chart",
    "ChartPart",
    "CheckpointFacts",
    "Ends",
    "ExperimentFacts",
    "Figure",
    "HtmlPart",
    "Line",
    "LineFigure",
    "MetricsChart",
    "Part",
    "Pattern",
    "ProblemPart",
    "SweepChart",
    "TrajectoryChart",
    "analyses_of",
    "check_charts",
    "experiments_of",
    "generate",
    "html_document",
    "markdown_document",
    "render_parts",
]
