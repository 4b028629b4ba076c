"""Normalisation by the root mean square, without weights (Zhang and Sennrich, arXiv 1910.07467).

`rms_norm(x)` is x / sqrt(mean(x²) + eps) over the last dimension. A model with `norm: rmsnorm` normalises its states
with it, `embedding_norm` the embeddings, and `qk_norm` the queries and keys of each head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from common.config.model import ModelConfig

LAYER_NORM_EPS: Final = 1e-5
RMS_NORM_EPS: Final = 1e-6
"""The default of NanoChat in transformers, which the export uses."""


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the norm of states (…, D) that the configuration names."""
    return RMSNorm() if config.norm == "rmsnorm" else nn.LayerNorm(config.d_model, eps=LAYER_NORM_EPS)


class RMSNorm(nn.Module):
    """`rms_norm` as a module, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (…, D) divided by its root mean square."""
        return train_rms_norm(x) if self.training else rms_norm(x)


def rms_norm(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return x (…, D) divided by its root mean square, in the dtype of x. On a CPU, `out` may be given, and may be x.

    On a CPU, the result for a row does not depend on the other rows, to the last bit. There, torch's `rms_norm` is a
    chain of operations that each read all of x, unless torch.compile fuses them.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.rms_norm(x, x.shape[-1:], eps=RMS_NORM_EPS)
    if x.dtype in (torch.float16, torch.bfloat16):
        return x * inverse_rms(x)
    # Three operations instead of four: one token needs hundreds of small operations, each of which takes microseconds.
    constants = _constants(x.shape[-1])
    divisor = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), constants.least)
    return torch.addcdiv(constants.zero, x, divisor, value=constants.root, out=out)


def train_rms_norm(x: Tensor) -> Tensor:
    """Return the same as `rms_norm`. On a CPU, its backward pass reads x less often than that of autograd."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return rms_norm(x)
    apply: Callable[..., Tensor] = _RMSNorm.apply
    return apply(x)


def inverse_rms(x: Tensor) -> Tensor:
    """Return 1 / sqrt(mean(x²) + eps), shape (…, 1), for x (…, D) on a CPU. The mean is over D.

    It is computed as sqrt(D) / hypot(‖x‖, sqrt(D eps)).
    """
    if torch.compiler.is_compiling():
        return x.square().mean(-1, keepdim=True).add(RMS_NORM_EPS).rsqrt()
    exact = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    constants = _constants(x.shape[-1])
    return torch.hypot(norm, constants.least).reciprocal().mul_(constants.root).to(x.dtype)


def rms_norm_gradient(gradient: Tensor, normalised: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient with respect to x for y = `rms_norm(x)` and r = `inverse_rms(x)`.

    With the gradient g with respect to y, it is r (g − y mean(g y)), because ∂r/∂x = −r³ x / D.
    """
    mean = (gradient * normalised).mean(-1, keepdim=True)
    return torch.addcmul(gradient, normalised, mean, value=-1).mul_(inverse)


class _Constants(NamedTuple):
    """Numbers for the width D. A scalar float64 tensor does not raise the dtype of a result."""

    root: float
    """sqrt(D)."""
    least: Tensor
    """sqrt(D eps)."""
    zero: Tensor


# A dictionary instead of `functools.lru_cache`, because code compiled by torch.compile ignores that cache.
_kept: dict[int, _Constants] = {}


def _constants(width: int) -> _Constants:
    found = _kept.get(width)
    if found is None:
        with torch.inference_mode(False):
            least, zero = (torch.tensor(value, dtype=torch.float64) for value in (math.sqrt(width * RMS_NORM_EPS), 0.0))
        found = _kept[width] = _Constants(math.sqrt(width), least, zero)
    return found


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = inverse_rms(x)
        normalised = x * inverse
        ctx.save_for_backward(normalised, inverse)
        return normalised

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        normalised, inverse = ctx.saved_tensors
        return rms_norm_gradient(grads[0], normalised, inverse)
