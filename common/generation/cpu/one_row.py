"""`DecodingModel.decode` for one row on a CPU, without the small costs of an operation.

One token of the default model is some 150 operations; what each adds to its arithmetic (views of its result, a mask, an
index) is a third of the time. Here queries, keys and values have their place, whose views are made once, and a row sees
just what it holds. The products are those of several rows, to the last bit. Shapes as in `decoding_model`, n = 1.
Leaves out: several rows, where the arithmetic outweighs it.
"""

from __future__ import annotations

import torch
from torch import Tensor, layer_norm
from torch.nn.functional import scaled_dot_product_attention

from common.config import ModelConfig
from common.generation.cpu.packed_layer import PackedLayer
from common.generation.cpu.packed_linear import Dense, FloatDense, Int8Dense
from common.generation.slot_cache import SlotCache


class OneRow:
    """For one thread. The layers do not change afterwards."""

    def __init__(self, layers: list[PackedLayer], config: ModelConfig) -> None:
        self._layers = layers
        self._qkv = torch.empty(1, 3 * config.d_model)
        heads = self._qkv.view(1, 3, config.num_heads, -1)
        self._pairs = torch.view_as_complex(torch.unflatten(heads[:, :2], -1, (-1, 2)))
        self._query = heads[:, 0].unsqueeze(2)
        self._key, self._value = heads[0, 1], heads[0, 2]
        self._heads = torch.arange(config.num_heads)

    @classmethod
    def of(cls, layers: list[PackedLayer], config: ModelConfig) -> OneRow | None:
        """None where the layers are not float32 or int8 on a CPU."""
        matrices = [matrix for layer in layers for matrix in layer.matrices]
        return cls(layers, config) if all(_for_one_row(its) for its in matrices) else None

    def __call__(self, x: Tensor, turn: Tensor, cache: SlotCache, scales: Tensor | None) -> Tensor:
        """The state (1, D) after all layers from embeddings x (1, D), changed in place, at the next position."""
        position = cache.lengths[0]
        places = self._heads * cache.capacity + position
        for index, (layer, held) in enumerate(zip(self._layers, cache.first_row, strict=True)):
            key_lines, value_lines, keys, values = held
            self._qkv.copy_(layer.qkv(layer_norm(x, *layer.norm1)))
            self._pairs.mul_(turn)
            key_lines.index_copy_(0, places, self._key)
            value_lines.index_copy_(0, places, self._value)
            attended = scaled_dot_product_attention(
                self._query, keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
            )
            update = layer.out(attended.view(1, -1))
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index])
            update = layer.down(layer.up.gelu(layer_norm(x, *layer.norm2)))
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index + 1])
        return x


def _for_one_row(matrix: Dense) -> bool:
    return isinstance(matrix, Int8Dense) or (isinstance(matrix, FloatDense) and matrix.on_cpu)
