"""Dropout on a CPU, with 16 random bits per element instead of one number per element.

torch's dropout takes a number from a serial generator for each element, which was 10 to 17 % of a training step. Here
an element is dropped if a 16-bit random integer is below p · 2¹⁶. This limit is rounded, so the probability differs
from p by at most 2⁻¹⁷. The kept elements are scaled according to the rounded limit, so the expected value does not
change. The integers come from one seed per forward pass, which torch's generator gives; a checkpoint stores the state
of the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

_VALUES = 1 << 16
"""Number of values of a 16-bit integer."""


class DropoutBits:
    """The random integers of one forward pass, of which each layer takes its part."""

    def __init__(self, count: int) -> None:
        """Sample `count` integers. They depend only on the state of torch's CPU generator, from which a seed is
        taken."""
        seed = int(torch.randint(1 << 62, ()))
        words = np.random.SFC64(seed).random_raw((count + 3) // 4)
        self._integers = torch.from_numpy(words.view(np.int16))
        self._used = 0

    def take(self, *shape: int) -> Tensor:
        """Return integers (int16, uniform) of a shape; no integer is returned twice. Raises RuntimeError if too few are
        left."""
        integers = self._integers[self._used : self._used + int(np.prod(shape))].view(*shape)
        self._used += integers.numel()
        return integers


class Rate(NamedTuple):
    """The probability of dropout as a limit for 16-bit integers."""

    limit: int
    """An element is kept if its integer is larger."""
    scale: float
    """Factor of the kept elements: 1 / (probability to keep one)."""


def rate(p: float) -> Rate:
    """Return the limit and the scale for dropout with probability `p` in [0, 1)."""
    dropped = min(round(p * _VALUES), _VALUES - 1)
    return Rate(dropped - _VALUES // 2 - 1, _VALUES / (_VALUES - dropped))


def comparable(integers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `integers`, not rounded, in the dtype in which `zero_dropped` needs them for an `x` of `dtype`."""
    return integers.to(dtype) if dtype in (torch.float32, torch.float64) else integers


def zero_dropped(x: Tensor, integers: Tensor, limit: int, *, out: Tensor | None = None) -> Tensor:
    """Return `x` with zeros where `integers`, of the same shape, are at most `limit`. The kept elements are not scaled.

    float32 and float64 use the kernel of ReLU's backward pass, which takes a quarter of the time of `torch.where`:
    it is vectorised, and a 16-bit integer is exact in these formats.
    """
    integers = comparable(integers, x.dtype)
    if integers.dtype != x.dtype:
        return torch.mul(x, integers >= limit + 1, out=out)  # `limit` can be below the smallest int16
    if out is None:
        out = torch.empty_like(x)
    torch.ops.aten.threshold_backward.grad_input(x, integers, limit, grad_input=out)
    return out


def dropout(x: Tensor, integers: Tensor, p: float) -> Tensor:
    """Return `x` after dropout with probability `p`; `integers` has the shape of `x`."""
    apply: Callable[..., Tensor] = _Dropout.apply
    return apply(x, integers, p)


def add_after_dropout(residual: Tensor, x: Tensor, integers: Tensor, p: float) -> Tensor:
    """Return residual + dropout(x), all of the same shape."""
    apply: Callable[..., Tensor] = _AddAfterDropout.apply
    return apply(residual, x, integers, p)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, integers: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(integers)
        ctx.rate = rate(p)
        return zero_dropped(x, integers, ctx.rate.limit).mul_(ctx.rate.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (integers,) = ctx.saved_tensors
        return zero_dropped(grads[0], integers, ctx.rate.limit).mul_(ctx.rate.scale), None, None


class _AddAfterDropout(Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, x: Tensor, integers: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(integers)
        ctx.rate = rate(p)
        return torch.add(residual, zero_dropped(x, integers, ctx.rate.limit), alpha=ctx.rate.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (integers,) = ctx.saved_tensors
        return grads[0], zero_dropped(grads[0], integers, ctx.rate.limit).mul_(ctx.rate.scale), None, None
