"""Maps the modulation m in [0, 1] to temperature, repetition penalty, top-k and top-p.

All four parameters change linearly with m: m = 0 makes the text predictable, m = 1 makes it varied. Rollouts, ablation
and serving use this map. `common.generation.sampling.sample` applies the parameters to logits, and
`common.generation.slot_states` chooses m.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from common.config import ModulationConfig, Range

DEFAULT_MODULATION = ModulationConfig()


class DecodingParameters(NamedTuple):
    """The decoding parameters of one token. `top_k` None disables top-k, and `top_p` 1 disables top-p."""

    temperature: float
    top_k: int | None
    top_p: float
    repetition_penalty: float


class DecodingParameterRows(NamedTuple):
    """The decoding parameters of B sequences: tensors (B,), float32 except `top_k`, which is int64."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    repetition_penalty: Tensor


def decoding_parameters(modulation: float, config: ModulationConfig = DEFAULT_MODULATION) -> DecodingParameters:
    """Return the decoding parameters for a modulation, which is first clamped to [0, 1].

    Top-k is rounded half to even.

    Raises ValueError if `modulation` is NaN.
    """
    if math.isnan(modulation):
        raise ValueError("modulation is NaN; give a number in [0, 1]")
    m = min(max(float(modulation), 0.0), 1.0)
    return DecodingParameters(
        temperature=config.base_temperature * _between(config.temperature, m),
        top_k=round(_between(config.top_k, m)),
        top_p=_between(config.top_p, m),
        repetition_penalty=config.base_repetition_penalty * _between(config.repetition_penalty, m),
    )


def decoding_parameter_rows(modulation: Tensor, config: ModulationConfig = DEFAULT_MODULATION) -> DecodingParameterRows:
    """Return the decoding parameters for `modulation` (B,) or (B, 1), on its device and without a host sync.

    The computation is in float64, so that top-k is rounded as in `decoding_parameters`.
    """
    m = modulation.reshape(-1).double().clamp(0.0, 1.0)

    def scaled(span: Range, base: float = 1.0) -> Tensor:
        return base * (span.low + m * (span.high - span.low))

    return DecodingParameterRows(
        temperature=scaled(config.temperature, config.base_temperature).float(),
        top_k=torch.round(scaled(config.top_k)).long(),
        top_p=scaled(config.top_p).float(),
        repetition_penalty=scaled(config.repetition_penalty, config.base_repetition_penalty).float(),
    )


def _between(span: Range, m: float) -> float:
    return span.low + m * (span.high - span.low)
