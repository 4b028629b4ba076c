"""The modulation m in [0, 1] and the four decoding parameters it stands for.

All four rise linearly with m: m = 0 is careful and repetitive, m = 1 is free. Used by rollouts, ablation and serving
alike. Leaves out: applying the parameters to logits (`common.generation.sampling.sample`) and choosing m
(`common.generation.slot_states`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from common.config import ModulationConfig, Range

DEFAULT_MODULATION = ModulationConfig()


class DecodingParameters(NamedTuple):
    """What one token is sampled with. `top_k` None and `top_p` 1 mean: no such filter."""

    temperature: float
    top_k: int | None
    top_p: float
    repetition_penalty: float


class DecodingParameterRows(NamedTuple):
    """The same for B rows at once: tensors (B,), float32 except `top_k`, which is int64."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    repetition_penalty: Tensor


def decoding_parameters(modulation: float, config: ModulationConfig = DEFAULT_MODULATION) -> DecodingParameters:
    """The parameters of one modulation, clamped to [0, 1] first; top-k is rounded half to even.

    Raises ValueError when `modulation` is not a number.
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
    """`decoding_parameters` for a tensor (B,) or (B, 1) of modulations, on its device, without a host sync.

    Computed in float64 so that top-k rounds as the scalar version does.
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
