"""What a policy does with the modulation: along one generation, across prompts, and what the text makes of it.

`analyze_trajectory` describes the modulations of one prompt (several samples are concatenated first), `analyze_batch`
compares prompts, `analyze_sweep` compares texts made at m = 0, 0.5 and 1. Keys are camelCase, as the API shows them.
Leaves out: generating, and anything that depends on the model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from common.analysis.stats import Summary, bootstrap_interval, mean, summarise, variance, welch_t
from common.errors import InvalidInputError

SIGNAL = "modulation"
WINDOWS = 4
PHASE_T = 2.0
"""A phase changes where |t| between neighbouring windows is above this."""
EXTREME_SHARE = 10
"""One token in so many is shown at either end."""
SWEEP_KEYS = ("0.0", "0.5", "1.0")


@dataclass(frozen=True, slots=True)
class TrajectoryToken:
    """One token as far as the analysis needs it."""

    token_id: int
    text: str
    modulation: float


class PhaseChange(TypedDict):
    """A change between neighbouring windows."""

    signal: str
    windowBoundary: str
    tStatistic: float


class AlignedToken(TypedDict):
    """A token at either end of the modulation."""

    position: int
    tokenId: int
    tokenText: str
    value: float


class Extremes(TypedDict):
    """The tokens of the highest and of the lowest modulation, both rising."""

    highTokens: list[AlignedToken]
    lowTokens: list[AlignedToken]


class TrajectoryAnalysis(TypedDict):
    """The analysis of one trajectory. There is one signal, so there are no correlations between signals."""

    signalStats: dict[str, Summary]
    signalEvolution: dict[str, list[Summary]]
    crossSignalCorrelations: dict[str, float]
    phases: list[PhaseChange]
    tokenSignalAlignment: dict[str, Extremes]


class PromptVariance(TypedDict):
    """How much of the variance lies between prompts."""

    betweenPromptVar: float
    withinPromptVar: float
    confidenceIntervals: NotRequired[dict[str, list[float]]]


class Strategy(TypedDict):
    """Mean and population deviation of the prompt means."""

    globalMean: float
    globalStd: float
    confidenceIntervals: NotRequired[dict[str, list[float]]]


class BatchAnalysis(TypedDict):
    """The analysis across prompts."""

    crossPromptVariance: dict[str, PromptVariance]
    strategyCharacterization: dict[str, Strategy]


class TextStatistics(TypedDict):
    """Simple measures of one text, prompt included."""

    wordCount: int
    uniqueWordRatio: float
    charCount: int


class SweepAnalysis(TypedDict):
    """Measures per modulation, and their value at 1 less that at 0."""

    statistics: dict[str, TextStatistics]
    deltas: dict[str, float]


def analyze_trajectory(tokens: Sequence[TrajectoryToken]) -> TrajectoryAnalysis:
    """Summary, evolution over four windows, phase changes and the tokens at both ends of the modulation.

    Raises InvalidInputError for no tokens.
    """
    if not tokens:
        raise InvalidInputError("a trajectory of 0 tokens cannot be analysed; generate at least one")
    values = [token.modulation for token in tokens]
    windows = _windows(values)
    phases = [
        PhaseChange(signal=SIGNAL, windowBoundary=f"Q{i + 1}→Q{i + 2}", tStatistic=t)
        for i in range(WINDOWS - 1)
        if abs(t := welch_t(windows[i], windows[i + 1])) > PHASE_T
    ]
    rising = sorted(range(len(tokens)), key=values.__getitem__)
    shown = max(1, len(tokens) // EXTREME_SHARE)

    def aligned(positions: Sequence[int]) -> list[AlignedToken]:
        return [
            AlignedToken(position=i, tokenId=tokens[i].token_id, tokenText=tokens[i].text, value=tokens[i].modulation)
            for i in positions
        ]

    return TrajectoryAnalysis(
        signalStats={SIGNAL: summarise(values)},
        signalEvolution={SIGNAL: [summarise(window) for window in windows]},
        crossSignalCorrelations={},
        phases=phases,
        tokenSignalAlignment={SIGNAL: Extremes(highTokens=aligned(rising[-shown:]), lowTokens=aligned(rising[:shown]))},
    )


def analyze_batch(
    modulations: Mapping[str, Sequence[float]], *, bootstrap: bool = False, resamples: int = 1000, seed: int = 0
) -> BatchAnalysis:
    """Variance between and within prompts, and the mean strategy, from the modulations of each prompt.

    With `bootstrap`, 95 % intervals over prompts of every figure. Raises InvalidInputError for no prompts or an empty
    one.
    """
    if not modulations:
        raise InvalidInputError("no prompts to analyse")
    empty = [prompt for prompt, values in modulations.items() if not values]
    if empty:
        raise InvalidInputError(f"prompt {empty[0]!r} has a trajectory of 0 tokens; generate at least one")
    means = [mean(values) for values in modulations.values()]
    variances = [variance(values) for values in modulations.values()]
    spread = PromptVariance(betweenPromptVar=variance(means), withinPromptVar=mean(variances))
    strategy = Strategy(globalMean=mean(means), globalStd=math.sqrt(variance(means)))
    if bootstrap:

        def interval(values: Sequence[float], statistic: Callable[[Sequence[float]], float]) -> list[float]:
            return list(bootstrap_interval(values, statistic, resamples=resamples, seed=seed))

        spread["confidenceIntervals"] = {
            "betweenPromptVar": interval(means, variance),
            "withinPromptVar": interval(variances, mean),
        }
        strategy["confidenceIntervals"] = {
            "globalMean": interval(means, mean),
            "globalStd": interval(means, lambda values: math.sqrt(variance(values))),
        }
    return BatchAnalysis(crossPromptVariance={SIGNAL: spread}, strategyCharacterization={SIGNAL: strategy})


def analyze_sweep(texts: Mapping[str, str]) -> SweepAnalysis:
    """Words (by whitespace), share of different words and characters of texts made at m = 0, 0.5 and 1.

    `texts` has the keys "0.0", "0.5", "1.0", each a whole text with its prompt. Raises InvalidInputError when one is
    missing.
    """
    missing = [key for key in SWEEP_KEYS if key not in texts]
    if missing:
        raise InvalidInputError(f"the sweep needs texts at {', '.join(SWEEP_KEYS)}; {', '.join(missing)} is missing")
    statistics = {key: _text_statistics(texts[key]) for key in SWEEP_KEYS}
    low, high = statistics["0.0"], statistics["1.0"]
    deltas = {
        "wordCount": float(high["wordCount"] - low["wordCount"]),
        "uniqueWordRatio": high["uniqueWordRatio"] - low["uniqueWordRatio"],
        "charCount": float(high["charCount"] - low["charCount"]),
    }
    return SweepAnalysis(statistics=statistics, deltas=deltas)


def _windows(values: Sequence[float]) -> list[Sequence[float]]:
    """Four consecutive parts; the first n mod 4 have one value more."""
    size, longer = divmod(len(values), WINDOWS)
    ends = [0]
    for i in range(WINDOWS):
        ends.append(ends[-1] + size + (i < longer))
    return [values[start:end] for start, end in itertools.pairwise(ends)]


def _text_statistics(text: str) -> TextStatistics:
    words = text.split()
    return TextStatistics(
        wordCount=len(words),
        uniqueWordRatio=len(set(words)) / len(words) if words else 0.0,
        charCount=len(text),
    )
