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
    """Return 1 / sqrt(mean(x²) + eps) over the last dimension, (…, 1), in the dtype of x."""
    exact = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
    return norm.square().div_(x.shape[-1]).add_(RMS_NORM_EPS).rsqrt_().to(x.dtype)


def rms_norm_gradient(gradient: Tensor, normalised: Tensor, inverse: Tensor) -> Tensor:
    """Return the gradient with respect to x for y = `rms_norm(x)` and r = `inverse_rms(x)`.

    With the gradient g with respect to y, it is r (g − y mean(g y)), because ∂r/∂x = −r³ x / D.
    """
    mean = (gradient * normalised).mean(-1, keepdim=True)
    return torch.addcmul(gradient, normalised, mean, value=-1).mul_(inverse)


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
