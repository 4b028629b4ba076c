"""Requests to compute and to save analyses of modulations. The replies are in `tidal_client.wire.analysis`."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from common.config.analysis import MAX_PROMPTS
from services.api.schemas.base import Request
from tidal_client.vocabulary import AnalysisKind, GatingMode, ModulatedGating
from tidal_client.wire.analysis import AnalysisResult
from tidal_client.wire.sampling import DEFAULTS, MaxTokens, Modulation, Seed

MAX_SAMPLES = 16
"""Maximum number of texts per prompt in an immediate analysis; an analysis job accepts more."""
Reference = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class AnalyzeRequest(Request):
    """A request to generate texts from prompts and to analyse their modulation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "checkpoint": "20260131-120000-commit_ab12cd3-config_0123456789/final",
                    "rlCheckpoint": "20260131-130000-commit_ab12cd3-rl_0123456789/final",
                    "prompts": ["Once upon a time", "The little cat", "One day a dog"],
                    "samplesPerPrompt": 2,
                    "bootstrap": True,
                }
            ]
        }
    )

    checkpoint: Reference
    """The language model: `<experiment id>/<file>`, or `<experiment id>/best`, `latest`, `final`."""
    rl_checkpoint: Reference | None = None
    """The controller, for gatingMode learned."""
    kind: AnalysisKind | None = None
    """single: the course of the modulation in the texts of one prompt. batch: the same for several prompts, with the
    variance of the modulation between and within prompts. sweep: the texts at the constant modulations 0, 0.5 and 1.
    null: single for one prompt, batch for several."""
    prompts: list[Annotated[str, StringConstraints(max_length=10_000)]] = Field(min_length=1, max_length=MAX_PROMPTS)
    """The prompts, which must differ; an empty prompt starts a new document."""
    samples_per_prompt: int = Field(1, ge=1, le=MAX_SAMPLES)
    """Number of texts per prompt; must be 1 for kind sweep."""
    max_tokens: MaxTokens = DEFAULTS.max_tokens
    """Maximum number of tokens per text. All texts together may have 4,096 tokens, or 20,000 with `stream`; submit a
    longer analysis as a job of type analysis."""
    gating_mode: ModulatedGating = GatingMode.LEARNED
    """How the modulation of each token is determined. Not used for kind sweep, which sets the modulation itself."""
    modulation: Modulation = DEFAULTS.modulation
    """The constant modulation for gatingMode fixed."""
    seed: Seed = 0
    """Seed of the first text. The seeds of the other texts and of the bootstrap resamples are derived from it. The same
    seed gives the same analysis."""
    bootstrap: bool = False
    """For kind batch: whether to add 95 % confidence intervals, computed from 1,000 bootstrap resamples of the
    prompts."""
    include_extreme_values: bool = False
    """For kinds single and batch: whether to add the result of kind sweep for the same prompts."""
    stream: bool = False
    """Whether to answer with server-sent events: `progress`, then `done` with the whole result, or `error`."""


class SaveAnalysisRequest(Request):
    """A request to save the result of an analysis."""

    name: Name | None = None
    result: AnalysisResult
    """The result as `POST /api/analyze-trajectories` returned it."""
