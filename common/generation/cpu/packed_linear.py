"""Linear layers as decoding wants them: packed once, read by every token. `pack(weight, bias, precision)`.

On a CPU float32 goes through oneDNN's blocked layout, made once: the default model's head takes 2.6 instead of 9.7 ms
at 16 rows, and the bits of a row are the same among any others. bfloat16 multiplies in that type and hands float32 on.
int8 holds weights with one scale per output. No row of activations changes another's result.
Leaves out: training; packed weights follow no later change of the model.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu, pad

from common.errors import ConfigError
from common.generation.cpu.huge_pages import in_huge_pages

LEAST_BIAS = -1e30
"""Stands in for −inf: exp of it is 0, and 0 times it is 0."""
ROWS_EXPECTED = 64
"""Rows that the blocked layout is made for; it is as good for 2 and for 500."""

INT8_WIDTH = 16
"""torch's int8 product reads inputs in vectors of so many on AVX-512, also beyond the end: narrower ones get zeros."""


class Precision(StrEnum):
    """What the matrices are multiplied in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Dense(Protocol):
    """x (n, in) float32 -> (n, out) float32, a new tensor; `nbytes` is what the weights take."""

    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """GELU (exact) of the layer's result."""
        return gelu(self(x))


class FloatDense(Dense):
    """A float32 layer, `on_cpu` in oneDNN's blocks, in which a row's result does not depend on their number."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight, self._bias = weight.detach().float(), bias.detach().float().clamp(min=LEAST_BIAS)
        self._blocks = _blocks(weight)
        self.on_cpu = self._blocks is not None
        self._weight = weight.t().contiguous() if self._blocks is None else None
        self.nbytes = weight.nbytes + self._bias.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x·W + b."""
        if self._weight is not None:
            return torch.addmm(self._bias, x, self._weight)
        return _multiply(x, self._blocks, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """GELU (exact) of the layer's result, on a CPU in the same pass."""
        return gelu(self(x)) if self._weight is not None else _multiply(x, self._blocks, self._bias, "gelu", "none")


class BFloat16Dense(Dense):
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


class Int8Dense(Dense):
    """An int8 layer: symmetric weights with one scale per output, activations and products rounded to bfloat16.

    Only the weights are whole numbers, so no row of activations has a scale that another could change. Made for one
    row, whose product costs what reading the weight does; for more than about 6 rows float32 is faster.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight = weight.detach().float()
        if weight.device.type != "cpu":
            raise ConfigError("int8 weights need a CPU; choose float32 or bfloat16")
        self._missing = -weight.shape[1] % INT8_WIDTH
        weight = pad(weight, (0, self._missing))
        self._scale = (weight.abs().amax(1).clamp(min=1e-12) / 127.0).to(torch.bfloat16)
        steps = (weight / self._scale[:, None].float()).round().clamp(-127, 127)
        self._weight = in_huge_pages(steps.to(torch.int8))
        self._bias = bias.detach().float().clamp(min=LEAST_BIAS)
        self.nbytes = self._weight.nbytes + self._scale.nbytes + self._bias.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x·W + b."""
        x = x.to(torch.bfloat16)
        if self._missing:
            x = pad(x, (0, self._missing))
        product: Tensor = torch._weight_int8pack_mm(x, self._weight, self._scale)
        return self._bias + product


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


def _multiply(x: Tensor, blocks: Tensor | None, bias: Tensor | None, then: str = "none", how: str = "") -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, then, [], how)
    return product
