"""`DecodingModel.decode` for one row of float32 layers on a CPU, without the small costs of an operation.

One token of the default model is some 150 operations; what each adds to its arithmetic (a new tensor, views of it) is
as much as half of the time. Here every result has its place, and the views of it are made once. Shapes as in
`decoding_model`, n = 1. Leaves out: several rows, where the arithmetic outweighs it.
"""

from __future__ import annotations

import torch
from torch import Tensor, baddbmm, layer_norm
from torch.nn.functional import gelu, scaled_dot_product_attention

from common.config import ModelConfig
from common.generation.dense import PARTS, FloatDense, Parts
from common.generation.packed_layer import PackedLayer
from common.generation.slot_cache import SlotCache


class OneRow:
    """For one thread. The layers do not change afterwards."""

    def __init__(self, layers: list[tuple[PackedLayer, list[Parts]]], config: ModelConfig) -> None:
        self._layers = layers
        self._qkv, qkv = _in_parts(3 * config.d_model)
        heads = qkv.view(1, 3, config.num_heads, -1)
        self._pairs = torch.view_as_complex(torch.unflatten(heads[:, :2], -1, (-1, 2)))
        self._query = heads[:, 0].unsqueeze(2)
        self._key, self._value = heads[0, 1], heads[0, 2]
        self._update, self._flat_update = _in_parts(config.d_model)
        self._inner, self._flat_inner = _in_parts(config.ffn_dim)
        self._heads = torch.arange(config.num_heads)

    @classmethod
    def of(cls, layers: list[PackedLayer], config: ModelConfig) -> OneRow | None:
        """None where the layers are not float32 on a CPU, or their widths do not divide into parts."""
        split = []
        for layer in layers:
            parts = [dense.parts for dense in layer.matrices if isinstance(dense, FloatDense) and dense.parts]
            split.append((layer, parts))
        whole = all(len(parts) == len(layer.matrices) for layer, parts in split)
        return cls(split, config) if whole and config.d_model % PARTS == config.ffn_dim % PARTS == 0 else None

    def __call__(self, x: Tensor, turn: Tensor, cache: SlotCache, scales: Tensor | None) -> Tensor:
        """The state (1, D) after all layers from embeddings x (1, D), changed in place, at the next position."""
        position = cache.lengths[0]
        places = self._heads * cache.capacity + position
        update = self._flat_update
        for index, ((layer, parts), held) in enumerate(zip(self._layers, cache.first_row, strict=True)):
            qkv, out, up, down = parts
            lines, value_lines, keys, values = held
            baddbmm(qkv.biases, _spread(layer_norm(x, *layer.norm1)), qkv.weight, out=self._qkv)
            self._pairs.mul_(turn)
            lines.index_copy_(0, places, self._key)
            value_lines.index_copy_(0, places, self._value)
            attended = scaled_dot_product_attention(
                self._query, keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
            )
            baddbmm(out.biases, _spread(attended.view(1, -1)), out.weight, out=self._update)
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index])
            baddbmm(up.biases, _spread(layer_norm(x, *layer.norm2)), up.weight, out=self._inner)
            baddbmm(down.biases, _spread(gelu(self._flat_inner)), down.weight, out=self._update)
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index + 1])
        return x


def _in_parts(width: int) -> tuple[Tensor, Tensor]:
    """Room for a product in parts, (PARTS, 1, width / PARTS), and the same as (1, width)."""
    parts = torch.empty(PARTS, 1, width // PARTS)
    return parts, parts.view(1, width)


def _spread(x: Tensor) -> Tensor:
    return x.expand(PARTS, 1, -1)
