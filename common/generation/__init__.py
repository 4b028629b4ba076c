"""Decoding: sampling, gating modes, and `generate`."""

from common.controller.modulation import decoding_parameters
from common.generation.gating import (
    FixedGating,
    Gating,
    GatingMode,
    LearnedGating,
    NoGating,
    RandomGating,
    StepContext,
    make_gating,
)
from common.generation.generate import generate, generate_batch
from common.generation.noise import RowNoise, fresh_seed
from common.generation.result import EffectiveSettings, FinishReason, Generation, TokenStep
from common.generation.sampling import (
    Candidates,
    SampledTokens,
    Scores,
    filter_candidates,
    filtered_probabilities,
    pick,
    sample_tokens,
    sampling_entropy,
    score,
    scored_logits,
)
from common.generation.settings import GenerationSettings
from common.generation.window import SlidingWindow

__all__ = [
    "Candidates",
    "EffectiveSettings",
    "FinishReason",
    "FixedGating",
    "Gating",
    "GatingMode",
    "Generation",
    "GenerationSettings",
    "LearnedGating",
    "NoGating",
    "RandomGating",
    "RowNoise",
    "SampledTokens",
    "Scores",
    "SlidingWindow",
    "StepContext",
    "TokenStep",
    "decoding_parameters",
    "filter_candidates",
    "filtered_probabilities",
    "fresh_seed",
    "generate",
    "generate_batch",
    "make_gating",
    "pick",
    "sample_tokens",
    "sampling_entropy",
    "score",
    "scored_logits",
]
