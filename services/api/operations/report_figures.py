"""Reads the data of a report's charts for its export.

Missing data is not an error: the figure contains a note about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import undefer

from common.db import Analysis, Experiment
from common.metrics import downsample, metric_names, read_table
from common.reports import (
    AblationChart,
    Bar,
    BarFigure,
    Chart,
    Figure,
    Line,
    LineFigure,
    MetricsChart,
    SweepChart,
    TrajectoryChart,
    html_document,
    markdown_document,
)
from common.reports.chart_blocks import MAX_LINES
from common.reports.templates.pieces import mapping, mappings
from services.api.context import Context
from services.api.operations import reports
from services.api.operations.experiments import ABLATION_FILE
from services.api.operations.metrics import limit_large_reads
from services.api.operations.report_facts import KINDS, read_optional_result
from tidal_client.wire.report import ReportReply

MAX_POINTS = 500
"""Maximum number of points per line of a chart in an exported file."""
MEASURES = {"wordCount": "words", "uniqueWordRatio": "share of different words", "charCount": "characters"}
SWEPT = {"0.0": 0.0, "0.5": 0.5, "1.0": 1.0}


def export_report(context: Context, report_id: str, *, html: bool) -> tuple[ReportReply, str]:
    """Return a report, and the text of its HTML or Markdown file. Raises NotFoundError."""
    with context.sessions() as session:
        report = reports.get_report(session, report_id)
    reader = FigureReader(context)
    if html:
        times = {"made_at": datetime.now(UTC), "changed_at": report.updated_at}
        return report, html_document(report.title, report.markdown, reader.figure, **times)
    return report, markdown_document(report.title, report.markdown, reader.figure)


class FigureReader:
    """Reads the figures of one report. Each experiment and each analysis is queried only once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._experiment_names: dict[str, str | None] = {}
        self._analysis_results: dict[str, Mapping[str, Any] | None] = {}

    def figure(self, chart: Chart) -> Figure:
        """Return the figure of a chart, with the currently stored data."""
        if isinstance(chart, MetricsChart):
            return self._metrics(chart)
        if isinstance(chart, AblationChart):
            return self._ablation(chart)
        if isinstance(chart, TrajectoryChart):
            return self._trajectory(chart)
        return self._sweep(chart)

    def _metrics(self, chart: MetricsChart) -> LineFigure:
        lines, missing = [], []
        for experiment in chart.experiments:
            name = self._experiment_name(experiment)
            if name is None:
                missing.append(missing_text(experiment))
                continue
            series, diverged = self._series(experiment, chart.metrics)
            for metric in chart.metrics:
                points = series.get(metric)
                if metric in diverged:
                    missing.append(f"{name} diverged: {metric} is not finite from step {diverged[metric]:,} on.")
                elif not points:
                    missing.append(f"{name} has no values of {metric}.")
                if not points:
                    continue
                label = metric if len(chart.experiments) == 1 else name
                if len(chart.experiments) > 1 and len(chart.metrics) > 1:
                    label = f"{name} · {metric}"
                lines.append(Line(label, [step for step, _ in points], [value for _, value in points]))
        title = chart.title or ", ".join(chart.metrics)
        return LineFigure(title, lines, log=chart.log_scale, missing=missing)

    def _series(self, experiment: str, wanted: list[str]) -> tuple[dict[str, list[tuple[int, float]]], dict[str, int]]:
        """Return {metric: finite points}, and {metric: first step at which the value is not finite}."""
        folder = self._context.store.experiment(experiment)
        found: dict[str, list[tuple[int, float]]] = {}
        diverged: dict[str, int] = {}
        for kind in KINDS:
            here = [name for name in metric_names(folder, kind) if name in wanted]
            if here:
                with limit_large_reads(folder / "metrics" / f"{kind}.index"):
                    table = read_table(folder, kind, here)
                found |= downsample(table, MAX_POINTS, here)
                diverged |= {name: int(steps[0]) for name in here if len(steps := table.non_finite(name))}
        return found, diverged

    def _ablation(self, chart: AblationChart) -> BarFigure:
        name = self._experiment_name(chart.experiment)
        what = "total reward" if chart.quantity == "total" else chart.quantity
        title = chart.title or (f"Differences in {what}" if chart.paired else f"{what.capitalize()} by policy")
        if name is None:
            return BarFigure(title, missing=[missing_text(chart.experiment)])
        result = read_optional_result(self._context.store, chart.experiment, ABLATION_FILE)
        if result is None:
            return BarFigure(title, missing=[f"{name} has no ablation."])
        rows = mapping(result.get("paired" if chart.paired else "policies"))
        bars = []
        for key, row in rows.items():
            found = mapping(row)
            total = mapping(found.get(chart.quantity) or mapping(found.get("components")).get(chart.quantity))
            mean, low, high = (finite_number(total.get(part)) for part in ("mean", "ci_low", "ci_high"))
            if mean is not None:
                bars.append(Bar(str(key).replace("_", " "), mean, low, high))
        missing = [] if bars else [f"The ablation of {name} has no values of this quantity."]
        return BarFigure(title, bars, signed=chart.paired, missing=missing)

    def _trajectory(self, chart: TrajectoryChart) -> LineFigure:
        result = self._analysis_result(chart.analysis)
        title = chart.title or "Modulation by token"
        if result is None:
            return LineFigure(title, missing=[f"Analysis {chart.analysis} does not exist."])
        rows = mappings(result.get("trajectories"))
        if chart.prompt > len(rows):
            return LineFigure(title, missing=[f"Analysis {chart.analysis} has no trajectory {chart.prompt}."])
        samples = mappings(rows[chart.prompt - 1].get("samples"))
        lines = []
        for sample in samples[:MAX_LINES]:
            values = [value for value in sample.get("modulation") or [] if finite_number(value) is not None]
            if values:
                label = f"seed {sample.get('seed')}" if len(samples) > 1 else "modulation"
                lines.append(Line(label, range(1, len(values) + 1), values))
        missing = [f"{len(samples) - MAX_LINES} more texts are not shown."] if len(samples) > MAX_LINES else []
        return LineFigure(title, lines, x_label="token", span=(0.0, 1.0), missing=missing)

    def _sweep(self, chart: SweepChart) -> LineFigure:
        result = self._analysis_result(chart.analysis)
        title = chart.title or f"{MEASURES[chart.measure].capitalize()} by modulation"
        if result is None:
            return LineFigure(title, missing=[f"Analysis {chart.analysis} does not exist."])
        lines = []
        rows = mappings(mapping(result.get("sweepAnalysis")).get("prompts"))
        for row in rows[:MAX_LINES]:
            statistics = mapping(row.get("statistics"))
            points = [(x, finite_number(mapping(statistics.get(key)).get(chart.measure))) for key, x in SWEPT.items()]
            known = [(x, y) for x, y in points if y is not None]
            if known:
                label = str(row.get("prompt") or "(new document)")
                lines.append(Line(label, [x for x, _ in known], [y for _, y in known]))
        missing = [] if lines else [f"Analysis {chart.analysis} contains no sweep."]
        if len(rows) > MAX_LINES:
            missing.append(f"{len(rows) - MAX_LINES} more prompts are not shown.")
        return LineFigure(title, lines, x_label="modulation", missing=missing)

    def _experiment_name(self, experiment: str) -> str | None:
        if experiment not in self._experiment_names:
            with self._context.sessions() as session:
                row = session.execute(select(Experiment.id, Experiment.name).where(Experiment.id == experiment)).first()
            self._experiment_names[experiment] = None if row is None else (row[1] or row[0])
        return self._experiment_names[experiment]

    def _analysis_result(self, analysis: str) -> Mapping[str, Any] | None:
        if analysis not in self._analysis_results:
            with self._context.sessions() as session:
                query = select(Analysis).where(Analysis.id == analysis).options(undefer(Analysis.result))
                row = session.scalars(query).one_or_none()
                self._analysis_results[analysis] = row.result if row is not None else None
        return self._analysis_results[analysis]


def missing_text(experiment: str) -> str:
    """Return the note in a figure whose experiment does not exist."""
    return f"Experiment {experiment} does not exist."


def finite_number(value: Any) -> float | None:
    """Return `value` if a chart can show it as a number, otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        return None
    return float(value)
