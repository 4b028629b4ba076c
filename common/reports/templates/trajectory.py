"""The report template trajectory-report: the saved analyses of an experiment, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.reports.facts import AnalysisFacts, ExperimentFacts
from common.reports.templates.pieces import ReportSection, chart, mapping, mappings
from common.reports.words import code, format_time, literal, markdown_table, number, plural

MOST_ANALYSES = 8
MOST_PROMPTS = 20
MOST_CHARTS = 2
"""Largest number of prompts of one analysis for which a chart of the modulation at each token is shown."""
SIGNAL = "modulation"
MEASURES = {"wordCount": "Words", "uniqueWordRatio": "Share of different words", "charCount": "Characters"}


def trajectory_sections(facts: ExperimentFacts) -> list[ReportSection]:
    """Return a section for each analysis."""
    if not facts.analyses:
        text = "No analysis is saved with this experiment, so there are no trajectories."
        return [ReportSection("Trajectories", [text])]
    shown = facts.analyses[:MOST_ANALYSES]
    total = max(facts.analyses_total, len(facts.analyses))
    begin = "One analysis is saved." if total == 1 else f"{total} analyses are saved."
    if total > len(shown):
        begin = f"{total} analyses are saved; these are the newest {len(shown)}."
    return [ReportSection("Trajectories", [begin]), *(_section(analysis) for analysis in shown)]


def _section(analysis: AnalysisFacts) -> ReportSection:
    result = analysis.result
    request = mapping(result.get("request"))
    blocks = [_request(analysis, request)]
    trajectories = mappings(result.get("trajectories"))
    if trajectories:
        blocks += _trajectories(analysis.id, trajectories)
    batch, sweep = result.get("batchAnalysis"), result.get("sweepAnalysis")
    if isinstance(batch, Mapping):
        blocks += _across_prompts(batch)
    if isinstance(sweep, Mapping):
        blocks += _sweep(analysis.id, sweep)
    return ReportSection(f"Analysis {literal(analysis.name or analysis.id)}", blocks)


def _request(analysis: AnalysisFacts, request: Mapping[str, Any]) -> str:
    prompts = request.get("prompts")
    parts = [f"Kind {analysis.kind}"]
    if isinstance(prompts, list):
        parts.append(plural(len(prompts), "prompt"))
    if request.get("checkpoint"):
        parts.append(f"model {code(str(request['checkpoint']))}")
    if request.get("rlCheckpoint"):
        parts.append(f"controller {code(str(request['rlCheckpoint']))}")
    elif request.get("gatingMode") and analysis.kind != "sweep":
        parts.append(f"gating {literal(str(request['gatingMode']))}")
    if request.get("seed") is not None:
        parts.append(f"seed {literal(str(request['seed']))}")
    return f"{', '.join(parts)}; saved {format_time(analysis.created_at)} as {code(analysis.id)}."


def _trajectories(analysis: str, trajectories: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for row in trajectories[:MOST_PROMPTS]:
        found = mapping(row.get("analysis"))
        stats = mapping(mapping(found.get("signalStats")).get(SIGNAL))
        phases = mappings(found.get("phases"))
        changes = ", ".join(
            f"{literal(str(phase.get('windowBoundary')))} (t {number(phase.get('tStatistic'), 3)})" for phase in phases
        )
        figures = [number(stats.get(key), 3) for key in ("mean", "std", "min", "max")]
        rows.append([_prompt(row), *figures, changes or "none"])
    header = ["Prompt", "Mean m", "Deviation", "Lowest", "Highest", "Changes between quarters"]
    blocks = [markdown_table(header, rows, right=(1, 2, 3, 4))]
    if len(trajectories) > MOST_PROMPTS:
        blocks.append(f"{len(trajectories) - MOST_PROMPTS} more prompts are not shown.")
    for at, row in enumerate(trajectories[:MOST_CHARTS], start=1):
        title = f"Modulation: {' '.join(str(row.get('prompt') or '(new document)').split())}"[:120].strip()
        blocks.append(chart(kind="trajectory", title=title, analysis=analysis, prompt=at))
    return blocks


def _prompt(row: Mapping[str, Any]) -> str:
    return literal(str(row.get("prompt") or ""), 160) or "(new document)"


def _across_prompts(batch: Mapping[str, Any]) -> list[str]:
    spread = mapping(mapping(batch.get("crossPromptVariance")).get(SIGNAL))
    strategy = mapping(mapping(batch.get("strategyCharacterization")).get(SIGNAL))
    between, within = spread.get("betweenPromptVar"), spread.get("withinPromptVar")
    rows = [
        _row("Variance between prompts", between, spread, "betweenPromptVar"),
        _row("Variance within prompts", within, spread, "withinPromptVar"),
        _row("Mean of the prompts' means", strategy.get("globalMean"), strategy, "globalMean"),
        _row("Standard deviation of the prompts' means", strategy.get("globalStd"), strategy, "globalStd"),
    ]
    blocks = [markdown_table(["Across prompts", "Value", "95 % interval"], rows, right=(1, 2))]
    if isinstance(between, int | float) and isinstance(within, int | float):
        if between > within:
            blocks.append("The modulation varies more between prompts than within them.")
        else:
            blocks.append("The modulation does not vary more between prompts than within them.")
    return blocks


def _row(name: str, value: Any, holder: Mapping[str, Any], key: str) -> list[str]:
    interval = mapping(holder.get("confidenceIntervals")).get(key)
    text = "–"
    if isinstance(interval, Sequence) and len(interval) == 2:
        text = f"{number(interval[0])} to {number(interval[1])}"
    return [name, number(value), text]


def _sweep(analysis: str, sweep: Mapping[str, Any]) -> list[str]:
    prompts = mappings(sweep.get("prompts"))
    rows = []
    for row in prompts[:MOST_PROMPTS]:
        statistics = mapping(row.get("statistics"))
        for key, name in MEASURES.items():
            figures = [number(mapping(statistics.get(m)).get(key)) for m in ("0.0", "0.5", "1.0")]
            rows.append([_prompt(row), name, *figures])
    blocks = [
        "Measures of texts generated at three fixed modulations with the same seed:",
        markdown_table(["Prompt", "Measure", "m = 0", "m = 0.5", "m = 1"], rows, right=(2, 3, 4)),
    ]
    changes = mapping(sweep.get("meanDeltas"))
    texts = [f"{name.lower()} {number(changes[key], signed=True)}" for key, name in MEASURES.items() if key in changes]
    if texts:
        blocks.append(f"Mean change from m = 0 to m = 1: {', '.join(texts)}.")
    blocks.append(chart(kind="sweep", title="Words by modulation", analysis=analysis, measure="wordCount"))
    return blocks
