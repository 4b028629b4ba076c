"""The configuration of a trajectory analysis: the prompts, how the modulation is chosen, and what is computed.

`common.analysis.trajectory` defines trajectories. `POST /api/analyze-trajectories` and jobs of type analysis use this
configuration. The request or job names the checkpoints. For an analysis that does not run as a job, the api has lower
limits.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, StringConstraints, model_validator

from common.config.base import Section
from tidal_client.vocabulary import AnalysisKind, GatingMode, ModulatedGating
from tidal_client.wire.sampling import DEFAULTS, MaxTokens, Modulation, Seed

MAX_PROMPTS: Final = 256
MAX_SAMPLES: Final = 64
MAX_TOKENS: Final = 100_000
"""Most tokens that one analysis may generate for all its samples together."""
SWEEP_SAMPLES: Final = 3
"""Number of samples that a sweep generates for each prompt: one each with the fixed modulations 0, 0.5 and 1."""


class AnalysisConfig(Section):
    """The configuration of one analysis. By default, `kind` is single for one prompt and batch for several."""

    kind: AnalysisKind
    """single describes the modulation along the samples of one prompt. batch does the same for each prompt, and adds
    the variance between and within prompts. sweep compares texts that are generated with the fixed modulations 0, 0.5
    and 1."""
    prompts: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=10_000)], ...],
        Field(min_length=1, max_length=MAX_PROMPTS),
    ]
    """Prompts, which must all be different. With an empty prompt, the model starts a new document."""
    samples_per_prompt: int = Field(1, ge=1, le=MAX_SAMPLES)
    """Number of samples that are generated for each prompt. It must be 1 for a sweep."""
    max_tokens: MaxTokens = DEFAULTS.max_tokens
    """Most tokens per sample; a sample ends earlier at the end-of-text token."""
    gating_mode: ModulatedGating = GatingMode.LEARNED
    """How the modulation is chosen; learned requires a controller. Not used for a sweep."""
    modulation: Modulation = DEFAULTS.modulation
    """Modulation of every token in gating mode fixed; not used in other modes."""
    seed: Seed = 0
    """Seed of the first sample, from which the seeds of the others are derived. Equal seeds give equal analyses."""
    bootstrap: bool = False
    """Whether to compute 95 % intervals from 1,000 bootstrap resamples of the prompts. Only for kind batch."""
    include_extreme_values: bool = False
    """Whether to add a sweep over the same prompts. Only for the kinds single and batch."""

    @model_validator(mode="before")
    @classmethod
    def _kind_from_prompts(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") is None:
            prompts = values.get("prompts")
            several = isinstance(prompts, list | tuple) and len(prompts) > 1
            return {**values, "kind": "batch" if several else "single"}
        return values

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        seen: dict[str, int] = {}
        for number, prompt in enumerate(self.prompts):
            if "\x00" in prompt:
                raise ValueError(f"prompt {number} contains a NUL character, which cannot be saved; remove it")
            if (first := seen.setdefault(prompt, number)) != number:
                raise ValueError(f"prompt {number} repeats prompt {first}; request several samples per prompt instead")
        if self.kind == "single" and len(self.prompts) > 1:
            raise ValueError(f"kind single takes one prompt, not {len(self.prompts)}; use kind batch")
        if self.kind == "sweep" and self.samples_per_prompt > 1:
            raise ValueError("a sweep generates one sample per prompt and modulation; set samples per prompt to 1")
        if self.kind == "sweep" and self.include_extreme_values:
            raise ValueError("a sweep already includes the extreme values; leave 'include extreme values' off")
        if self.kind != "batch" and self.bootstrap:
            raise ValueError(f"bootstrap is only for kind batch; do not set it for kind {self.kind}")
        if self.token_limit > MAX_TOKENS:
            raise ValueError(
                f"{self.samples} samples of up to {self.max_tokens} tokens are {self.token_limit} tokens, but the "
                f"limit is {MAX_TOKENS}; request fewer prompts, samples or tokens"
            )
        return self

    @property
    def samples(self) -> int:
        """Number of samples that are generated for all prompts together."""
        per_prompt = 0 if self.kind == "sweep" else self.samples_per_prompt
        if self.kind == "sweep" or self.include_extreme_values:
            per_prompt += SWEEP_SAMPLES
        return per_prompt * len(self.prompts)

    @property
    def token_limit(self) -> int:
        """Largest number of tokens that the analysis can generate."""
        return self.samples * self.max_tokens

    @property
    def uses_policy(self) -> bool:
        """Whether a controller chooses the modulation."""
        return self.kind != "sweep" and self.gating_mode is GatingMode.LEARNED
