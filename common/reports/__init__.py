"""Renders, checks, exports and generates reports, which are Markdown with charts as fenced blocks.

    parts = render_parts(markdown)                        # safe HTML and charts, for the dashboard
    check_charts(markdown)                                # raises InvalidInputError, which names the line
    html_document(title, markdown, figure_of, made_at=…)  # a single HTML file
    generate_report("experiment-overview", facts)         # a report about stored experiments

All functions are pure: they neither read files nor use the database. `services.api.operations` reads the data of the
charts.
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
from common.reports.facts import AnalysisFacts, CheckpointFacts, ExperimentFacts, MetricSummary
from common.reports.figures import Bar, BarFigure, Figure, Line, LineFigure
from common.reports.markdown import ChartPart, HtmlPart, Part, ProblemPart, check_charts, render_parts
from common.reports.templates import TEMPLATES, Template, generate_report

__all__ = [
    "TEMPLATES",
    "AblationChart",
    "AnalysisFacts",
    "Bar",
    "BarFigure",
    "Chart",
    "ChartPart",
    "CheckpointFacts",
    "ExperimentFacts",
    "Figure",
    "HtmlPart",
    "Line",
    "LineFigure",
    "MetricSummary",
    "MetricsChart",
    "Part",
    "ProblemPart",
    "SweepChart",
    "Template",
    "TrajectoryChart",
    "analyses_of",
    "check_charts",
    "experiments_of",
    "generate_report",
    "html_document",
    "markdown_document",
    "render_parts",
]
