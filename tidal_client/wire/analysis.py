"""Analyses of modulations: the result, how far one is, and those that were saved."""

from __future__ import annotations

from typing import Annotated, Any

from ..vocabulary import AnalysisKind
from .base import Open, Reply, UtcTime


class AnalysisSample(Reply):
    """One generated text; the three lists have one entry per token."""

    seed: int
    text: str
    """Without the prompt."""
    finish_reason: str
    token_ids: list[int]
    token_texts: list[str]
    modulation: list[float]


class PromptTrajectory(Reply):
    """One prompt: the modulations of its samples, one after the other."""

    prompt: str
    analysis: dict[str, Any]
    """`signalStats`, `signalEvolution` (four windows), `phases`, `tokenSignalAlignment` (tokens at both ends)."""
    samples: list[AnalysisSample]


class AnalysisResult(Reply):
    """A whole analysis."""

    kind: Annotated[AnalysisKind, Open()]
    request: dict[str, Any]
    """What was asked, every default filled in."""
    trajectories: list[PromptTrajectory]
    """One per prompt; none for kind sweep."""
    batch_analysis: dict[str, Any] | None = None
    """kind batch: `crossPromptVariance`, `strategyCharacterization`, with `bootstrap` their `confidenceIntervals`."""
    sweep_analysis: dict[str, Any] | None = None
    """kind sweep, or `includeExtremeValues`: `prompts` (texts, statistics at "0.0", "0.5", "1.0", deltas) and
    `meanDeltas`."""
    tokens_generated: int
    elapsed_ms: float


class AnalysisProgress(Reply):
    """An event `progress`."""

    texts: int
    """Finished."""
    texts_total: int
    tokens: int
    """Generated."""
    most_tokens: int
    """What may become of them; texts may end earlier."""


class AnalysisSummary(Reply):
    """A saved analysis without its result."""

    id: str
    experiment_id: str
    job_id: str | None = None
    """The job that made it; null: saved by a client."""
    kind: Annotated[AnalysisKind, Open()]
    name: str | None = None
    request: dict[str, Any]
    created_at: UtcTime


class SavedAnalysis(AnalysisSummary):
    """A saved analysis."""

    result: AnalysisResult


class AnalysisList(Reply):
    """A page of saved analyses, newest first."""

    analyses: list[AnalysisSummary]
    next_cursor: str | None = None


class AnalysesDeleted(Reply):
    """How many were deleted."""

    deleted: int
