"""Analyses the modulation of generated tokens along one trajectory and across prompts, and its effect on texts.

A trajectory is the list of the tokens of all samples of one prompt, one sample after the other, with the modulation of
each token. `analyze_trajectory` describes one trajectory. `analyze_batch` compares prompts. `analyze_sweep` compares
texts generated with the fixed modulations m = 0, 0.5 and 1. Keys are camelCase, as in the API.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from common.analysis.stats import Summary, bootstrap_interval, mean, summarise, variance, welch_t
from common.config import NEGLIGIBLE_MODULATION
from common.errors import InvalidInputError

SIGNAL = "modulation"
"""Name of the only signal, the modulation. The results use this name as a key."""
WINDOWS = 4
"""Number of consecutive parts (quarters) into which a trajectory is divided."""
PHASE_T = 2.0
"""A phase change is reported where |Welch's t| between neighbouring quarters is above this value, and the difference of
their means at least `NEGLIGIBLE_MODULATION`. In a flat trajectory, rounding alone can make t large."""
EXTREME_SHARE = 10
"""The analysis lists one token in EXTREME_SHARE as high in modulation, and the same number of tokens as low."""
SWEEP_KEYS = ("0.0", "0.5", "1.0")
"""The fixed modulations that `analyze_sweep` compares, as keys of its results."""


@dataclass(frozen=True, slots=True)
class TrajectoryToken:
    """The fields of a generated token that the analysis needs."""

    token_id: int
    text: str
    modulation: float


class PhaseChange(TypedDict):
    """A significant and large enough change of the mean modulation between two neighbouring quarters."""

    signal: str
    windowBoundary: str
    tStatistic: float


class AlignedToken(TypedDict):
    """A token with one of the highest or lowest modulations."""

    position: int
    tokenId: int
    tokenText: str
    value: float


class Extremes(TypedDict):
    """The tokens with the highest and those with the lowest modulations. Both lists ascend in modulation."""

    highTokens: list[AlignedToken]
    lowTokens: list[AlignedToken]


class TrajectoryAnalysis(TypedDict):
    """The analysis of one trajectory. `crossSignalCorrelations` is empty, because there is only one signal."""

    signalStats: dict[str, Summary]
    signalEvolution: dict[str, list[Summary]]
    crossSignalCorrelations: dict[str, float]
    phases: list[PhaseChange]
    tokenSignalAlignment: dict[str, Extremes]


class PromptVariance(TypedDict):
    """Variance of the modulation between prompts and within prompts."""

    betweenPromptVar: float
    withinPromptVar: float
    confidenceIntervals: NotRequired[dict[str, list[float]]]


class Strategy(TypedDict):
    """Mean and population standard deviation of the mean modulations of all prompts."""

    globalMean: float
    globalStd: float
    confidenceIntervals: NotRequired[dict[str, list[float]]]


class BatchAnalysis(TypedDict):
    """The comparison of the modulations of several prompts."""

    crossPromptVariance: dict[str, PromptVariance]
    strategyCharacterization: dict[str, Strategy]


class TextStatistics(TypedDict):
    """Counts of words and characters in one text, including the prompt."""

    wordCount: int
    uniqueWordRatio: float
    charCount: int


class SweepAnalysis(TypedDict):
    """Text statistics for each modulation, and the differences between m = 1 and m = 0."""

    statistics: dict[str, TextStatistics]
    deltas: dict[str, float]


def analyze_trajectory(tokens: Sequence[TrajectoryToken]) -> TrajectoryAnalysis:
    """Return summaries of the trajectory and of its four quarters, phase changes, and tokens with extreme modulations.

    Raises InvalidInputError for no tokens.
    """
    if not tokens:
        raise InvalidInputError("a trajectory of 0 tokens cannot be analysed; generate at least one")
    values = [token.modulation for token in tokens]
    quarters = _quarters(values)
    phases = [
        PhaseChange(signal=SIGNAL, windowBoundary=f"Q{i + 1}→Q{i + 2}", tStatistic=t)
        for i in range(WINDOWS - 1)
        if abs(t := welch_t(quarters[i], quarters[i + 1])) > PHASE_T
        and abs(mean(quarters[i]) - mean(quarters[i + 1])) >= NEGLIGIBLE_MODULATION
    ]
    ascending = sorted(range(len(tokens)), key=values.__getitem__)
    shown = max(1, len(tokens) // EXTREME_SHARE)

    def aligned(positions: Sequence[int]) -> list[AlignedToken]:
        return [
            AlignedToken(position=i, tokenId=tokens[i].token_id, tokenText=tokens[i].text, value=tokens[i].modulation)
            for i in positions
        ]

    return TrajectoryAnalysis(
        signalStats={SIGNAL: summarise(values)},
        signalEvolution={SIGNAL: [summarise(quarter) for quarter in quarters]},
        crossSignalCorrelations={},
        phases=phases,
        tokenSignalAlignment={
            SIGNAL: Extremes(highTokens=aligned(ascending[-shown:]), lowTokens=aligned(ascending[:shown]))
        },
    )


def analyze_batch(
    modulations: Mapping[str, Sequence[float]], *, bootstrap: bool = False, resamples: int = 1000, seed: int = 0
) -> BatchAnalysis:
    """Return the modulation's variances between and within prompts, and statistics of the prompts' mean modulations.

    `modulations` is {prompt: modulations of its tokens}. With `bootstrap`, the result includes a 95 % bootstrap
    interval over prompts for every figure. Raises InvalidInputError if there are no prompts or a prompt has no
    modulations.
    """
    if not modulations:
        raise InvalidInputError("there are no prompts to analyse; give at least one")
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
    """Compare texts generated at m = 0, 0.5 and 1 by numbers of words and characters and by share of distinct words.

    `texts` has the keys "0.0", "0.5" and "1.0"; each text includes its prompt. Words are separated by white space.
    Raises InvalidInputError if a key is missing.
    """
    missing = [key for key in SWEEP_KEYS if key not in texts]
    if missing:
        raise InvalidInputError(
            f"`texts` must have a text for each modulation ({', '.join(SWEEP_KEYS)}); {', '.join(missing)} is missing"
        )
    statistics = {key: _text_statistics(texts[key]) for key in SWEEP_KEYS}
    low, high = statistics["0.0"], statistics["1.0"]
    deltas = {
        "wordCount": float(high["wordCount"] - low["wordCount"]),
        "uniqueWordRatio": high["uniqueWordRatio"] - low["uniqueWordRatio"],
        "charCount": float(high["charCount"] - low["charCount"]),
    }
    return SweepAnalysis(statistics=statistics, deltas=deltas)


def _quarters(values: Sequence[float]) -> list[Sequence[float]]:
    """Divide n values into four consecutive parts. The first n mod 4 parts have one more value than the others."""
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
