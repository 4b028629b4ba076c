"""Normalisation by the root mean square, without weights (Zhang and Sennrich, arXiv 1910.07467).

`rms_norm(x)` is x / sqrt(mean(x²) + eps) over the last dimension. A model with `norm: rmsnorm` normalises its states
with it, `embedding_norm` the embeddings, and `qk_norm` the queries and keys of each head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from common.config.lm import ModelConfig

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
        return train_rms_norm(x) if self.training and x.device.type == "cpu" else rms_norm(x)


def rms_norm(x: Tensor) -> Tensor:
    """Return x (…, D) divided by its root mean square, in the dtype of x.

    On a CPU, the result for a row does not depend on the other rows, to the last bit. There, torch's `rms_norm` is a
    chain of operations that each read all of x.
    """
    if x.device.type != "cpu":
        return functional.rms_norm(x, x.shape[-1:], eps=RMS_NORM_EPS)
    return x * inverse_rms(x)


def train_rms_norm(x: Tensor) -> Tensor:
    """Return the same as `rms_norm`. Its backward pass reads x less often than that of autograd."""
    apply: Callable[..., Tensor] = _RMSNorm.apply
    return apply(x)


def inverse_rms(x: Tensor) -> Tensor:
    """Return 1 / sqrt(mean(x²) + eps) over the last dimension D of x on a CPU, (…, 1), in the dtype of x.

    It is computed as sqrt(D) / hypot(‖x‖, sqrt(D eps)), in three operations, because decoding one token has hundreds of
    small operations and each takes microseconds.
    """
    exact = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    root, least = _constants(x.shape[-1])
    return torch.div(root, torch.hypot(norm, least)).to(x.dtype)


def rms_norm_gradient(gradient: Tensor, normalised: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient with respect to x for y = `rms_norm(x)` and r = `inverse_rms(x)`.

    With the gradient g with respect to y, it is r (g − y mean(g y)), because ∂r/∂x = −r³ x / D.
    """
    mean = (gradient * normalised).mean(-1, keepdim=True)
    return torch.addcmul(gradient, normalised, mean, value=-1).mul_(inverse)


# A dictionary instead of `functools.lru_cache`, because code compiled by torch.compile ignores that cache.
_kept: dict[int, tuple[Tensor, Tensor]] = {}


def _constants(width: int) -> tuple[Tensor, Tensor]:
    """Return sqrt(D) and sqrt(D eps) for width D as scalars, float64 without raising the dtype of a result."""
    if width not in _kept:
        with torch.inference_mode(False):
            exact = torch.tensor([width, width * RMS_NORM_EPS], dtype=torch.float64).sqrt()
            root, least = exact.unbind()
            _kept[width] = root, least
    return _kept[width]


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
