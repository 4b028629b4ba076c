"""The activation of the feed-forward network: the exact GELU, or the square of the ReLU (So et al., arXiv 2109.08668).

`ACTIVATIONS` has the function for each value of `model.activation`. `TRAINING_ACTIVATIONS` has the same functions with
the backward pass that is fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import gelu, relu


def relu_squared(x: Tensor) -> Tensor:
    """Return max(x, 0)²."""
    return relu(x).square()


class ReLUSquared(nn.Module):
    """`relu_squared` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return max(x, 0)²."""
        return relu_squared(x)


class _ReLUSquared(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.mul(grads[0], positive).mul_(2.0)


def _train_relu_squared(x: Tensor) -> Tensor:
    apply: Callable[..., Tensor] = _ReLUSquared.apply
    return apply(x)


ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"gelu": gelu, "relu2": relu_squared}
TRAINING_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {"gelu": gelu, "relu2": _train_relu_squared}
