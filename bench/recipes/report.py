"""The report: a line per arm, and the verdicts on the bounds of the recipes.

Values are medians over the seeds, with the smallest and the largest in brackets. A comparison pairs the seeds of two
arms; its interval is the 95 % interval of the mean of the paired ratios (Student's t).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.recipes.arms import ARMS, Arm
from bench.recipes.campaign import (
    Results,
    Run,
    Setup,
    Stage,
    best_tuned,
    final_runs,
    score,
    speed,
    speed_runs,
    tuning_runs,
)

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""{number of values: 97.5 % quantile of Student's t}."""
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A bound on the ratio of a figure of two arms."""

    what: str
    ours: str
    other: str
    ratio: Callable[[Result, Result], float]
    """Returns the figure of our arm divided by that of the other arm, for the results of one seed."""
    bound: float
    at_least: bool = False
    stage: Stage = "final"
    """The runs whose figures are compared."""


def bits_ratio(unit: str) -> Callable[[Result, Result], float]:
    """Return the function that divides the bits per byte of arms with this kind of budget."""
    which = "best" if unit == "seconds" else "final"

    def ratio(ours: Result, other: Result) -> float:
        return float(ours[which]["bits_per_byte"] / other[which]["bits_per_byte"])

    return ratio


def tokens_ratio(ours: Result, other: Result) -> float:
    """Return the tokens after which `ours` has the final loss of `other`, as a share of the tokens of `other`.

    Both losses are those of the validations during the run, which read the same tokens. Infinity if it is not reached.
    """
    reached = tokens_to_reach(ours["curve"], other["curve"][-1][2])
    return math.inf if reached is None else reached / float(other["tokens"])


def tokens_to_reach(curve: Sequence[Sequence[float]], loss: float) -> float | None:
    """Return the tokens at which the curve first is at most `loss`, interpolated linearly; None if it never is."""
    for number, (tokens, _, value, _) in enumerate(curve):
        if value > loss:
            continue
        if number == 0:
            return float(tokens)
        before, _, higher, _ = curve[number - 1]
        return float(before + (tokens - before) * (higher - loss) / (higher - value))
    return None


def speed_ratio(ours: Result, other: Result) -> float:
    """Return the ratio of bytes per second of two runs that measure the speed."""
    return float(ours["bytes_per_second"] / other["bytes_per_second"])


COMPARISONS = [
    Comparison("tokens to the peer's final loss", "modern", "gpt2", tokens_ratio, 0.6),
    Comparison("bits per byte in the same time", "own-text", "adamw-decay-0.1", bits_ratio("seconds"), 0.97),
    Comparison("bytes per second", "vocabulary-own", "vocabulary-gpt2", speed_ratio, 2.0, at_least=True, stage="speed"),
    Comparison("bits per byte in the same time", "vocabulary-own", "vocabulary-gpt2", bits_ratio("seconds"), 1.0),
]
NEUTRAL_LOSS = 0.005
"""Largest difference in nats of the loss without modulation, with and without modulated batches."""


def report(setup: Setup, arms: Sequence[Arm], results: Results) -> str:
    """Return the tables as Markdown. Arms without a finished run of their tuning are left out."""
    lines = [
        f"Depth {setup.depth}, {setup.entries or 'GPT-2'} entries, {setup.tokens:,} tokens, or the tokens that an arm "
        f"computes in {setup.seconds:g} s at its speed, tuning with {setup.tuning_share:.0%} of that, "
        f"{setup.threads} threads, texts {setup.texts}.",
        "",
        "| arm | tuned rate, batch | bits per byte | loss, nats | tokens | tokens/s | tokens to gpt2's loss | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    arms = [arm for arm in arms if any(run.key in results for run in tuning_runs(setup, arm, results))]
    lines += [_arm_line(setup, arm, results) for arm in arms]
    lines += [
        "",
        "| figure | ours | against | ratio | 95 % interval | bound | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_comparison_line(setup, comparison, results) for comparison in COMPARISONS]
    lines.append(_gates_line(setup, results))
    lines += ["", *(f"- {arm.name}: {arm.about}" for arm in arms)]
    return "\n".join(lines)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean; None for fewer than two values or values that are not finite."""
    if len(values) < 2 or len(values) not in T_95 or not all(map(math.isfinite, values)):
        return None
    middle = statistics.fmean(values)
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return middle - half, middle + half


def _ended(setup: Setup, name: str, results: Results, stage: Stage = "final") -> dict[int, Result]:
    """Return {seed: result} of the final runs of an arm that have ended, also by divergence.

    For the stage "speed", return {round: result} of the runs that measured the speed with the tuned batch.
    """
    runs = (final_runs(setup, ARMS[name], results) or []) if name in ARMS else []
    if stage == "speed":
        runs = [run for run in speed_runs(setup, ARMS[name]) if runs and run.batch == runs[0].batch]
    return {run.seed: results[run.key] for run in runs if run.key in results}


def _finished(setup: Setup, name: str, results: Results, stage: Stage = "final") -> dict[int, Result]:
    """Return {seed: result} of the runs of an arm that ended and did not diverge."""
    ended = _ended(setup, name, results, stage)
    return {seed: result for seed, result in ended.items() if not result.get("diverged")}


def _paired(
    setup: Setup,
    names: tuple[str, str],
    results: Results,
    figure: Callable[[Result, Result], float],
    worst: float = math.inf,
    stage: Stage = "final",
) -> list[float]:
    """Return the figure of each seed that has ended in our arm and finished in the other one.

    A run of ours that diverged has the figure `worst`.
    """
    ours, other = _ended(setup, names[0], results, stage), _finished(setup, names[1], results, stage)
    pairs = [(ours[seed], other[seed]) for seed in ours if seed in other]
    return [worst if found.get("diverged") else figure(found, reference) for found, reference in pairs]


def _verdict(setup: Setup, values: Sequence[float], *, kept: bool) -> str:
    """Return the verdict, which needs all seeds of both arms."""
    if len(values) < len(setup.seeds):
        return f"incomplete, {len(values)} of {len(setup.seeds)} seeds"
    return "yes" if kept else "NO"


def _arm_line(setup: Setup, arm: Arm, results: Results) -> str:
    best = best_tuned(setup, arm, results)
    done = _finished(setup, arm.name, results)
    tuned = "not tuned yet" if best is None else f"{best.rate:g}, {best.batch}{_edge(setup, arm, best)}"
    if not done:
        return f"| {arm.name} | {tuned} | | | | | | 0 |"
    peer = _finished(setup, "gpt2", results)
    which = "best" if arm.unit == "seconds" else "final"
    measured = None if best is None else speed(setup, arm, best.batch, results)
    reached = [tokens_ratio(done[seed], peer[seed]) for seed in done if seed in peer]
    cells = [
        arm.name,
        tuned,
        _spread([score(arm, result) for result in done.values()], "{:.4f}"),
        _spread([result[which]["loss"] for result in done.values()], "{:.4f}"),
        _spread([result["tokens"] for result in done.values()], "{:,.0f}"),
        "" if measured is None else f"{measured:,.0f}",
        _reached(reached) if reached and arm.unit == "tokens" else "",
        str(len(done)),
    ]
    return "| " + " | ".join(cells) + " |"


def _edge(setup: Setup, arm: Arm, best: Run) -> str:
    tuned = ARMS[arm.tuned_as] if arm.tuned_as else arm
    edges = {round(tuned.rate * factor, 10) for factor in (min(setup.rate_factors), max(setup.rate_factors))}
    return " (edge of the grid)" if best.rate in edges else ""


def _spread(values: Sequence[float], form: str) -> str:
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} [{form.format(min(values))}, {form.format(max(values))}]"


def _reached(shares: Sequence[float]) -> str:
    return "not reached" if math.isinf(statistics.median(shares)) else _spread(shares, "{:.0%}")


def _comparison_line(setup: Setup, comparison: Comparison, results: Results) -> str:
    worst = 0.0 if comparison.at_least else math.inf
    ratios = _paired(setup, (comparison.ours, comparison.other), results, comparison.ratio, worst, comparison.stage)
    sign = "≥" if comparison.at_least else "≤"
    names = f"| {comparison.what} | {comparison.ours} | {comparison.other} |"
    if not ratios:
        return f"{names} | | {sign} {comparison.bound:g} | not measured |"
    middle, limits = statistics.median(ratios), interval(ratios)
    kept = middle >= comparison.bound if comparison.at_least else middle <= comparison.bound
    between = "" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
    return f"{names} {middle:.3f} | {between} | {sign} {comparison.bound:g} | {_verdict(setup, ratios, kept=kept)} |"


def _gates_line(setup: Setup, results: Results) -> str:

    def difference(ours: Result, other: Result) -> float:
        return float(ours["final"]["loss"] - other["final"]["loss"])

    pairs = _paired(setup, ("modern-modulated", "modern-gates"), results, difference)
    names = "| neutral loss, difference in nats | modern-modulated | modern-gates |"
    if not pairs:
        return f"{names} | | ≤ {NEUTRAL_LOSS} | not measured |"
    middle, limits = statistics.median(pairs), interval(pairs)
    between = "" if limits is None else f"{limits[0]:.4f} to {limits[1]:.4f}"
    verdict = _verdict(setup, pairs, kept=middle <= NEUTRAL_LOSS)
    return f"{names} {middle:.4f} | {between} | ≤ {NEUTRAL_LOSS} | {verdict} |"
