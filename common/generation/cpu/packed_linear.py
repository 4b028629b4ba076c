"""Linear layers whose weights are packed once for decoding: `pack(weight, bias, precision)`.

On a CPU, float32 weights are kept in oneDNN's blocked layout: the default model's head takes 2.6 ms instead of 9.7 ms
at 16 rows, and a row's result is the same to the last bit in any batch. bfloat16 layers multiply in bfloat16 and return
float32. int8 layers have one scale per output. In every precision a row of activations does not affect other rows.
Packed layers cannot be trained, and later changes of the model do not affect them.
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
"""A finite value that replaces −inf in biases. The exponential of either value is 0, but −inf times 0 would be NaN."""
ROWS_EXPECTED = 64
"""Number of rows for which oneDNN's blocked layout is optimised. It is equally fast for 2 rows and for 500."""

INT8_WIDTH = 16
"""The input width is padded with zeros to a multiple of this number, because on AVX-512 torch's int8 product reads
vectors of 16 values, even beyond the end of a row."""


class Precision(StrEnum):
    """The number format in which the matrices are multiplied."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class PackedLinear(Protocol):
    """A linear layer: x (n, in) float32 -> (n, out) float32 in a new tensor. `nbytes` is the memory of the weights."""

    nbytes: int

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of the layer's result."""
        return gelu(self(x))

    def relu_squared(self, x: Tensor) -> Tensor:
        """Return max(y, 0)² for the layer's result y."""
        return self(x).relu_().square_()


class SoftCapped(PackedLinear):
    """A layer whose results y are limited to cap · tanh(y / cap)."""

    def __init__(self, layer: PackedLinear, cap: float) -> None:
        self._layer, self._cap, self.nbytes = layer, cap, layer.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """Return the limited results."""
        return self._layer(x).div_(self._cap).tanh_().mul_(self._cap)


class Float32Linear(PackedLinear):
    """A float32 layer. With `on_cpu` it uses oneDNN's blocked layout: a row's result is the same in every batch."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight, self._bias = weight.detach().float(), _finite(bias)
        self._blocks = _blocks(weight)
        self.on_cpu = self._blocks is not None
        self._weight = weight.t().contiguous() if self._blocks is None else None
        self.nbytes = weight.nbytes + _nbytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x·W + b."""
        if self._weight is not None:
            return _product(x, self._weight, self._bias)
        return _multiply(x, self._blocks, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Return the exact GELU of the layer's result; on a CPU it is computed in the same pass."""
        return gelu(self(x)) if self._weight is not None else _multiply(x, self._blocks, self._bias, "gelu", "none")

    def relu_squared(self, x: Tensor) -> Tensor:
        """Return max(y, 0)² for the layer's result y; on a CPU the maximum is computed in the same pass."""
        if self._weight is not None:
            return self(x).relu_().square_()
        return _multiply(x, self._blocks, self._bias, "relu").square_()


class BFloat16Linear(PackedLinear):
    """A bfloat16 layer with float32 inputs and outputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().to(torch.bfloat16)
        self._blocks = _blocks(weight)
        self._weight = weight.t().contiguous() if self._blocks is None else None
        self._bias = _finite(bias)
        self._narrow_bias = None if self._bias is None else self._bias.to(torch.bfloat16)
        self.nbytes = weight.nbytes + _nbytes(self._bias)

    def narrow(self, x: Tensor) -> Tensor:
        """Return x·W + b for x in float32 or bfloat16.

        If the weight is in oneDNN's blocked layout, the result is float32. Otherwise, as on a GPU, the result is
        bfloat16 and takes a single operation.
        """
        if self._weight is None:
            return self(x)
        return _product(x.to(torch.bfloat16), self._weight, self._narrow_bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x·W + b."""
        x = x.to(torch.bfloat16)
        if self._weight is None:
            assert self._blocks is not None
            product = _multiply(x, self._blocks, None)
        elif x.is_cuda:  # the float32 sums are returned, because rounding them would make the logits inexact
            product = torch.mm(x, self._weight, out_dtype=torch.float32)
        else:
            product = torch.mm(x, self._weight)
        return product.float() if self._bias is None else product + self._bias


class Int8Linear(PackedLinear):
    """An int8 layer: symmetric weights with one scale per output, activations and products rounded to bfloat16.

    Only the weights are quantised. If activations were quantised with a scale that several rows share, these rows
    would affect each other. The layer is meant for one row, where reading the weights takes most of the time. For
    more than about 6 rows, float32 is faster.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().float()
        if weight.device.type != "cpu":
            raise ConfigError(
                f"int8 weights run on a CPU only, and this model is on {weight.device.type}; choose float32 or bfloat16"
            )
        self._padding = -weight.shape[1] % INT8_WIDTH
        weight = pad(weight, (0, self._padding))
        self._scale = (weight.abs().amax(1).clamp(min=1e-12) / 127.0).to(torch.bfloat16)
        steps = (weight / self._scale[:, None].float()).round().clamp(-127, 127)
        self._weight = in_huge_pages(steps.to(torch.int8))
        self._bias = _finite(bias)
        self.nbytes = self._weight.nbytes + self._scale.nbytes + _nbytes(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x·W + b."""
        x = x.to(torch.bfloat16)
        if self._padding:
            x = pad(x, (0, self._padding))
        product: Tensor = torch._weight_int8pack_mm(x, self._weight, self._scale)
        return product.float() if self._bias is None else self._bias + product


def pack(weight: Tensor, bias: Tensor | None, precision: Precision) -> PackedLinear:
    """Return the layer x·weightᵀ + bias for weight (out, in), which is copied. `bias` (out,) may be None.

    Raises ConfigError for int8 on a device other than the CPU.
    """
    if precision is Precision.INT8:
        return Int8Linear(weight, bias)
    return BFloat16Linear(weight, bias) if precision is Precision.BFLOAT16 else Float32Linear(weight, bias)


def _finite(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().float().clamp(min=LEAST_BIAS)


def _nbytes(bias: Tensor | None) -> int:
    return 0 if bias is None else bias.nbytes


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _blocks(weight: Tensor) -> Tensor | None:
    """Return the weight (out, in) in oneDNN's layout for `ROWS_EXPECTED` rows, or None if oneDNN is not available."""
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return None
    if weight.dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS_EXPECTED)
    return blocks


def _multiply(
    x: Tensor, blocks: Tensor | None, bias: Tensor | None, activation: str = "none", algorithm: str = ""
) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, blocks, bias, activation, [], algorithm)
    return product
