"""What one analysis of modulations is asked to do: which prompts, how the modulation is chosen, what is computed.

Shared by `POST /api/analyze-trajectories` and jobs of type analysis. Leaves out: which checkpoints, and the limits of
an immediate answer, which are the api's.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, StringConstraints, model_validator

from common.config.base import Section
from tidal_client.vocabulary import AnalysisKind, ChosenGating, GatingMode
from tidal_client.wire.sampling import DEFAULTS, MaxTokens, Modulation, Seed

MAX_PROMPTS: Final = 256
MAX_SAMPLES: Final = 64
MAX_TOKENS: Final = 100_000
"""Most tokens one analysis may generate, all texts together."""
SWEEP_TEXTS: Final = 3
"""Texts per prompt of a sweep: at m = 0, 0.5 and 1."""


class AnalysisConfig(Section):
    """One analysis. Without `kind`: single for one prompt, batch for several."""

    kind: AnalysisKind
    """single: the modulation along the texts of one prompt. batch: the same for each prompt, and the spread between and
    within prompts. sweep: what becomes of the text at m = 0, 0.5 and 1."""
    prompts: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=10_000)], ...],
        Field(min_length=1, max_length=MAX_PROMPTS),
    ]
    """Different texts; an empty one starts a new document."""
    samples_per_prompt: int = Field(1, ge=1, le=MAX_SAMPLES)
    """Texts per prompt, analysed as one after the other; 1 for a sweep."""
    max_tokens: MaxTokens = DEFAULTS.max_tokens
    """Most tokens per text; a text ends earlier at end-of-text."""
    gating_mode: ChosenGating = GatingMode.LEARNED
    """Who chooses the modulation; learned needs a controller. Not used by a sweep."""
    modulation: Modulation = DEFAULTS.modulation
    """For gating mode fixed."""
    seed: Seed = 0
    """Of the first text; the others follow from it, and so do the resamples. One seed gives one analysis."""
    bootstrap: bool = False
    """batch: 95 % intervals from 1,000 resamples of the prompts."""
    include_extreme_values: bool = False
    """single, batch: a sweep over the same prompts as well."""

    @model_validator(mode="before")
    @classmethod
    def _kind_from_prompts(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") is None:
            prompts = values.get("prompts")
            several = isinstance(prompts, list | tuple) and len(prompts) > 1
            return {**values, "kind": "batch" if several else "single"}
        return values

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        seen: dict[str, int] = {}
        for number, prompt in enumerate(self.prompts):
            if "\x00" in prompt:
                raise ValueError(f"prompt {number} holds a NUL character, which cannot be saved; leave it out")
            if (first := seen.setdefault(prompt, number)) != number:
                raise ValueError(f"prompt {number} repeats prompt {first}; ask for several samples per prompt instead")
        if self.kind == "single" and len(self.prompts) > 1:
            raise ValueError(f"kind single has one prompt, not {len(self.prompts)}; use kind batch")
        if self.kind == "sweep" and self.samples_per_prompt > 1:
            raise ValueError("a sweep makes one text per prompt and modulation; leave samples per prompt at 1")
        if self.kind == "sweep" and self.include_extreme_values:
            raise ValueError("a sweep is the analysis of the extreme values; leave include extreme values out")
        if self.kind != "batch" and self.bootstrap:
            raise ValueError(f"bootstrap resamples the prompts of a batch; leave it out for kind {self.kind}")
        if self.most_tokens > MAX_TOKENS:
            raise ValueError(
                f"{self.texts} texts of up to {self.max_tokens} tokens are {self.most_tokens} tokens, the limit is "
                f"{MAX_TOKENS}; ask for fewer prompts, samples or tokens"
            )
        return self

    @property
    def texts(self) -> int:
        """Texts that are generated."""
        per_prompt = 0 if self.kind == "sweep" else self.samples_per_prompt
        if self.kind == "sweep" or self.include_extreme_values:
            per_prompt += SWEEP_TEXTS
        return per_prompt * len(self.prompts)

    @property
    def most_tokens(self) -> int:
        """Tokens that are generated at most."""
        return self.texts * self.max_tokens

    @property
    def uses_policy(self) -> bool:
        """Whether a controller chooses the modulation of some text."""
        return self.kind != "sweep" and self.gating_mode is GatingMode.LEARNED
