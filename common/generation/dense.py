"""Linear layers as decoding wants them: packed once, read by every token. `pack(weight, bias, precision)`.

float32 keeps a wide weight as (in, out) contiguous rows: one row of activations then streams through it in order, which
is several times faster on a CPU than the (out, in) layout of `nn.Linear`. Several rows go through oneDNN's blocked
layout, made once. bfloat16 multiplies in that type and hands float32 on.
int8 holds one scale per output, and scales every row of activations on its own, so that no row changes another's
result. Leaves out: training; packed weights follow no later change of the model.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from common.errors import ConfigError

LEAST_BIAS = -1e30
"""Stands in for −inf: exp of it is 0, and 0 times it is 0."""
ROWS_EXPECTED = 64
"""Rows that the blocked layout is made for; it is nearly as good for 2 and for 500."""


class Precision(StrEnum):
    """What the matrices are multiplied in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Dense(Protocol):
    """x (n, in) float32 -> (n, out) float32, a new tensor; `nbytes` is what the weights take."""

    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...


class FloatDense:
    """A float32 layer. On a CPU with oneDNN it holds the weight twice: in order for one row, in blocks for more."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight = weight.detach().float()
        outputs, inputs = weight.shape
        # For one row the longer side is best the outer one (1024 → 256: 0.08 instead of 0.14 ms).
        self._weight = weight.t().contiguous() if outputs >= inputs else weight.clone().t()
        self._blocks = _blocks(weight)
        self._bias = bias.detach().float().clamp(min=LEAST_BIAS)
        self.nbytes = self._weight.nbytes * (1 if self._blocks is None else 2) + self._bias.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x·W + b."""
        if self._blocks is None or len(x) == 1:
            return torch.addmm(self._bias, x, self._weight)
        return _multiply(x, self._blocks, self._bias)


class BFloat16Dense:
    """A bfloat16 layer between float32 activations."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight = weight.detach().to(torch.bfloat16)
        self._blocks = _blocks(weight)
        self._weight = weight.t().contiguous() if self._blocks is None else None
        self._bias = bias.detach().float().clamp(min=LEAST_BIAS)
        self._narrow_bias = self._bias.to(torch.bfloat16)
        self.nbytes = weight.nbytes + self._bias.nbytes

    def narrow(self, x: Tensor) -> Tensor:
        """x·W + b in bfloat16 where the weight is held in order, as on a GPU: one operation. x of either type."""
        if self._weight is None:
            return self(x)
        return torch.addmm(self._narrow_bias, x.to(torch.bfloat16), self._weight)

    def __call__(self, x: Tensor) -> Tensor:
        """x·W + b."""
        x = x.to(torch.bfloat16)
        if self._weight is not None:
            if x.is_cuda:  # the sums are float32; rounding them would blur the logits
                return torch.mm(x, self._weight, out_dtype=torch.float32) + self._bias
            return torch.mm(x, self._weight) + self._bias
        assert self._blocks is not None
        return _multiply(x, self._blocks, None) + self._bias


class Int8Dense:
    """An int8 layer: symmetric weights with a scale per output, activations as unsigned bytes with a scale per row.

    oneDNN's kernel knows one activation scale for all rows; here it gets 1, and rows are scaled before and after. Its
    path for signed activations is not vectorised (measured: a thousand times slower), hence the zero point of 128.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        if weight.device.type != "cpu" or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
            raise ConfigError("int8 weights need a CPU and a torch with oneDNN; choose float32 or bfloat16")
        weight = weight.detach().float()
        self._scale = weight.abs().amax(1).clamp(min=1e-12) / 127.0
        whole = (weight / self._scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        self._bias = bias.detach().float().clamp(min=LEAST_BIAS)
        self.nbytes = whole.nbytes + self._scale.nbytes + self._bias.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x·W + b."""
        scale = x.abs().amax(1, keepdim=True).clamp_(min=1e-12).div_(127.0)
        whole = torch.div(x, scale).round_().add_(128.0).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            whole, 1.0, 128, self._weight, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(self._bias, product, scale)


def pack(weight: Tensor, bias: Tensor, precision: Precision) -> Dense:
    """The layer x·weightᵀ + bias of weight (out, in), copied. Raises ConfigError where int8 is not to be had."""
    if precision is Precision.INT8:
        return Int8Dense(weight, bias)
    return BFloat16Dense(weight, bias) if precision is Precision.BFLOAT16 else FloatDense(weight, bias)


def _blocks(weight: Tensor) -> Tensor | None:
    """The weight (out, in) in oneDNN's layout for some tens of rows; None where there is no oneDNN."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return None
    if weight.dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_EXPECTED)
    return blocks


def _multiply(x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, "none", [], "")
    return product
