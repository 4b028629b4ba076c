"""Analyses of modulations: results, progress events, and saved analyses."""

from __future__ import annotations

from typing import Annotated, Any

from ..vocabulary import AnalysisKind
from .base import OpenEnum, Reply, UtcTime


class AnalysisSample(Reply):
    """One completion. `tokenIds`, `tokenTexts` and `modulation` have one entry per token."""

    seed: int
    text: str
    """The generated text without the prompt."""
    finish_reason: str
    token_ids: list[int]
    token_texts: list[str]
    modulation: list[float]


class PromptTrajectory(Reply):
    """One prompt with its completions, and the analysis of their concatenated modulations."""

    prompt: str
    analysis: dict[str, Any]
    """Keys: `signalStats`, `signalEvolution` (statistics of four successive parts of the modulations), `phases`, and
    `tokenSignalAlignment` (the tokens with the lowest and the highest modulation)."""
    samples: list[AnalysisSample]


class AnalysisResult(Reply):
    """The complete result of an analysis."""

    kind: Annotated[AnalysisKind, OpenEnum()]
    request: dict[str, Any]
    """The request with all defaults filled in."""
    trajectories: list[PromptTrajectory]
    """One element per prompt; empty for kind sweep."""
    batch_analysis: dict[str, Any] | None = None
    """For kind batch: `crossPromptVariance` and `strategyCharacterization`; with `bootstrap`, also their
    `confidenceIntervals`."""
    sweep_analysis: dict[str, Any] | None = None
    """For kind sweep or with `includeExtremeValues`. `prompts` contains, for each prompt, the completions and
    statistics at the modulations "0.0", "0.5" and "1.0", and their differences. `meanDeltas` contains the means of the
    differences over all prompts."""
    tokens_generated: int
    elapsed_ms: float


class AnalysisProgress(Reply):
    """The data of an event `progress`."""

    texts: int
    """Number of finished completions."""
    texts_total: int
    tokens: int
    """Number of tokens generated so far."""
    most_tokens: int
    """Maximum number of tokens of the analysis; completions may end earlier."""


class AnalysisSummary(Reply):
    """A saved analysis without its result."""

    id: str
    experiment_id: str
    job_id: str | None = None
    """The job that created the analysis; null if a client saved it."""
    kind: Annotated[AnalysisKind, OpenEnum()]
    name: str | None = None
    request: dict[str, Any]
    created_at: UtcTime


class SavedAnalysis(AnalysisSummary):
    """A saved analysis with its result."""

    result: AnalysisResult


class AnalysisList(Reply):
    """A page of saved analyses, newest first."""

    analyses: list[AnalysisSummary]
    next_cursor: str | None = None


class AnalysesDeleted(Reply):
    """How many analyses a deletion has deleted."""

    deleted: int
