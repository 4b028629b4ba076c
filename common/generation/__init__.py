"""Text generation: sampling, gating modes, engines for continuous batching, and the function `generate`."""

from common.controller.modulation import decoding_parameters
from common.generation.continuation import Continuation
from common.generation.cpu.packed_linear import Precision
from common.generation.cuda.engine import BatchEngine, DeviceEngine, new_engine
from common.generation.decoding_model import DecodingModel
from common.generation.engine import DecodingEngine
from common.generation.generate import generate, generate_batch
from common.generation.native.backend import Backend
from common.generation.result import EffectiveSettings, FinishReason, Generation, TokenStep
from common.generation.sampling.noise import fresh_seed
from common.generation.sampling.sample import (
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
from tidal_client.vocabulary import GatingMode

__all__ = [
    "Backend",
    "BatchEngine",
    "Candidates",
    "Continuation",
    "DecodingEngine",
    "DecodingModel",
    "DeviceEngine",
    "EffectiveSettings",
    "FinishReason",
    "GatingMode",
    "Generation",
    "GenerationSettings",
    "Precision",
    "SampledTokens",
    "Scores",
    "TokenStep",
    "decoding_parameters",
    "filter_candidates",
    "filtered_probabilities",
    "fresh_seed",
    "generate",
    "generate_batch",
    "new_engine",
    "pick",
    "sample_tokens",
    "sampling_entropy",
    "score",
    "scored_logits",
]
