"""Renders the result of `tidal analyze`: tables of the modulation, and texts coloured by their modulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from common.analysis.trajectory import PHASE_T
from common.config import NEGLIGIBLE_MODULATION
from services.cli.output import modulation_style, table
from tidal_client import AnalysisResult
from tidal_client.wire.analysis import AnalysisSample, PromptTrajectory

SIGNAL = "modulation"
STATISTICS = {"wordCount": "words", "uniqueWordRatio": "different words", "charCount": "characters"}


def render_analysis(result: AnalysisResult) -> Iterator[RenderableType]:
    """Yield the tables and texts that show a result."""
    if result.kind == "single":
        yield from _single(result.trajectories[0])
    elif result.kind == "batch":
        yield from _batch(result)
    if result.sweep_analysis is not None:
        yield from _sweep(result.sweep_analysis)


def _single(trajectory: PromptTrajectory) -> Iterator[RenderableType]:
    for sample in trajectory.samples:
        yield Text.assemble((trajectory.prompt, "dim"), *_coloured(sample), "\n")
    analysis = trajectory.analysis
    windows = table("", "mean>", "std>", "min>", "25 %>", "median>", "75 %>", "max>")
    evolution = analysis["signalEvolution"][SIGNAL]
    quarters = ((f"Q{number + 1}", statistics) for number, statistics in enumerate(evolution))
    for name, statistics in (("all", analysis["signalStats"][SIGNAL]), *quarters):
        keys = ("mean", "std", "min", "q25", "q50", "q75", "max")
        windows.add_row(name, *(_number(statistics[key]) for key in keys))
    yield windows
    size = f"by at least {NEGLIGIBLE_MODULATION}, |t| > {PHASE_T:.0f}"
    yield Text(f"Changes between quarters ({size}): {_phases(analysis) or 'none'}\n")
    deviation = analysis["signalStats"][SIGNAL]["std"]
    if deviation < NEGLIGIBLE_MODULATION:
        yield Text(f"m behaves like a constant: its standard deviation is {deviation:.2g}.\n", style="yellow")
    ends = analysis["tokenSignalAlignment"][SIGNAL]
    for name, tokens in (("Lowest", ends["lowTokens"]), ("Highest", ends["highTokens"])):
        shown = [Text.assemble((repr(item["tokenText"]), modulation_style(item["value"]))) for item in tokens]
        yield Text(f"{name}: ").append_text(Text(" ").join(shown))


def _batch(result: AnalysisResult) -> Iterator[RenderableType]:
    rows = table("prompt", "tokens>", "mean>", "std>", "min>", "max>", "phase changes")
    for trajectory in result.trajectories:
        figures = trajectory.analysis["signalStats"][SIGNAL]
        tokens = sum(len(sample.token_ids) for sample in trajectory.samples)
        numbers = [_number(figures[key]) for key in ("mean", "std", "min", "max")]
        prompt = trajectory.prompt or "(new document)"
        rows.add_row(prompt, str(tokens), *numbers, _phases(trajectory.analysis))
    yield rows
    batch = result.batch_analysis or {}
    spread = batch["crossPromptVariance"][SIGNAL]
    strategy = batch["strategyCharacterization"][SIGNAL]
    summary = table("modulation", "value>", "95 % interval")
    for name, values, key in (
        ("mean of the prompts' means", strategy, "globalMean"),
        ("standard deviation of the prompts' means", strategy, "globalStd"),
        ("variance between prompts", spread, "betweenPromptVar"),
        ("variance within prompts", spread, "withinPromptVar"),
    ):
        interval = values.get("confidenceIntervals", {}).get(key)
        # Four significant digits, because three decimal places would round small variances to zero.
        shown = f"{interval[0]:.4g} … {interval[1]:.4g}" if interval else "(--bootstrap)"
        summary.add_row(name, f"{values[key]:.4g}", shown)
    yield summary


def _sweep(sweep: Mapping[str, Any]) -> Iterator[RenderableType]:
    rows = table("prompt", "modulation>", *(f"{name}>" for name in STATISTICS.values()))
    for item in sweep["prompts"]:
        for key, figures in item["statistics"].items():
            first = key == next(iter(item["statistics"]))
            prompt = item["prompt"] or "(new document)"
            rows.add_row(prompt if first else "", Text(key, modulation_style(float(key))), *_statistics(figures))
        rows.add_row("", "1 − 0", *_statistics(item["deltas"], sign="+"), style="dim")
    if len(sweep["prompts"]) > 1:
        rows.add_row("mean of all", "1 − 0", *_statistics(sweep["meanDeltas"], sign="+"), style="bold")
    yield rows
    if len(sweep["prompts"]) == 1:
        [item] = sweep["prompts"]
        for key, text in item["texts"].items():
            style = modulation_style(float(key))
            yield Text.assemble((f"{key}  ", "bold"), (item["prompt"], "dim"), (text, style), "\n")


def _statistics(figures: Mapping[str, float], sign: str = "") -> list[str]:
    return [f"{figures[key]:{sign}.3f}" if "Ratio" in key else f"{figures[key]:{sign}.0f}" for key in STATISTICS]


def _phases(analysis: Mapping[str, Any]) -> str:
    return ", ".join(f"{phase['windowBoundary']} t = {phase['tStatistic']:+.1f}" for phase in analysis["phases"])


def _coloured(sample: AnalysisSample) -> list[tuple[str, str]]:
    tokens = zip(sample.token_texts, sample.modulation, strict=True)
    return [(text, modulation_style(value)) for text, value in tokens]


def _number(value: float) -> str:
    return f"{value:.3f}"
