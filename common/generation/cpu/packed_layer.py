"""The weights of one transformer block, packed for decoding (`packed_linear`).

Queries, keys and values are computed with one matrix, whose columns are reordered so that the two numbers of a rotary
pair are neighbours. The forward pass is in `decoding_model` and `single_sequence`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.generation.cpu.packed_linear import PackedLinear, Precision, pack

Norm = tuple[list[int], Tensor | None, Tensor | None, float]
"""The arguments of `layer_norm` after x: shape, weight, bias, eps."""


class PackedLayer:
    """The packed weights of one block."""

    def __init__(self, block: nn.Module, num_heads: int, precision: Precision) -> None:
        def layer(name: str) -> tuple[Tensor, Tensor]:
            return block.get_parameter(f"{name}.weight"), block.get_parameter(f"{name}.bias")

        (wq, bq), (wk, bk), (wv, bv) = layer("q_proj"), layer("k_proj"), layer("v_proj")
        wq, bq, wk, bk = (_pairs_together(tensor, num_heads) for tensor in (wq, bq, wk, bk))
        self.qkv: PackedLinear = pack(torch.cat((wq, wk, wv)), torch.cat((bq, bk, bv)), precision)
        self.out: PackedLinear = pack(*layer("out_proj"), precision)
        self.up: PackedLinear = pack(*layer("ffn.0"), precision)
        self.down: PackedLinear = pack(*layer("ffn.3"), precision)
        self.norm1 = packed_norm(block.get_submodule("ln1"))
        self.norm2 = packed_norm(block.get_submodule("ln2"))

    @property
    def matrices(self) -> list[PackedLinear]:
        """The linear layers in the order in which they are applied."""
        return [self.qkv, self.out, self.up, self.down]

    @property
    def nbytes(self) -> int:
        """Return the memory of the weights in bytes."""
        return sum(matrix.nbytes for matrix in self.matrices)


def packed_norm(module: nn.Module) -> Norm:
    """Return the arguments of `layer_norm` for a LayerNorm module."""
    assert isinstance(module, nn.LayerNorm)
    return list(module.normalized_shape), module.weight.detach(), module.bias.detach(), module.eps


def _pairs_together(tensor: Tensor, num_heads: int) -> Tensor:
    """Return rows (H·K, …) with the rows [a…, b…] of each head reordered to [a0, b0, a1, b1, …]."""
    return torch.unflatten(tensor.detach(), 0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)
