"""`DecodingModel.decode` for a single sequence on a CPU, with less overhead per operation.

One token of the default model needs about 150 operations, and their overhead (views, masks, indices) takes a third of
the time. Here queries, keys and values are written to one buffer whose views are created only once. Attention reads
exactly the positions of the sequence, without a mask. The results equal those in a batch to the last bit. Shapes are
those of `decoding_model` with n = 1. Several sequences are decoded in `decoding_model`, because for several sequences
the arithmetic takes most of the time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from common.config import ModelConfig
from common.generation.cpu.packed_layer import PackedLayer
from common.generation.cpu.packed_linear import Float32Linear, Int8Linear, PackedLinear
from common.generation.slot_cache import SlotCache
from common.model.norm import rms_norm


class SingleSequenceDecoder:
    """Decodes one sequence with `layers`, which must not change afterwards; not thread-safe."""

    def __init__(self, layers: list[PackedLayer], config: ModelConfig) -> None:
        self._layers = layers
        self._qkv = torch.empty(1, 3 * config.d_model)
        heads = self._qkv.view(1, 3, config.num_heads, -1)
        self._queries_and_keys = heads[:, :2]
        self._qk_norm = config.qk_norm
        self._pairs = torch.view_as_complex(torch.unflatten(heads[:, :2], -1, (-1, 2)))
        self._query = heads[:, 0].unsqueeze(2)
        self._key, self._value = heads[0, 1], heads[0, 2]
        self._heads = torch.arange(config.num_heads)

    @classmethod
    def for_layers(cls, layers: list[PackedLayer], config: ModelConfig) -> SingleSequenceDecoder | None:
        """Return a decoder, or None if the layers are not float32 or int8 layers on a CPU."""
        matrices = [matrix for layer in layers for matrix in layer.matrices]
        return cls(layers, config) if all(_supports_single_sequence(matrix) for matrix in matrices) else None

    def __call__(self, x: Tensor, rotation: Tensor, cache: SlotCache, scales: Tensor | None) -> Tensor:
        """Return the state (1, D) after all layers for embeddings x (1, D), which are changed in place.

        `rotation` is the rotary factor of the next position of slot 0 of the cache. `scales` are the factors of the
        gates, if any.
        """
        position = cache.lengths[0]
        lines = self._heads * cache.capacity + position
        for index, (layer, slot_views) in enumerate(zip(self._layers, cache.first_slot, strict=True)):
            key_lines, value_lines, keys, values = slot_views
            self._qkv.copy_(layer.qkv(layer.norm1(x)))
            if self._qk_norm:
                rms_norm(self._queries_and_keys, out=self._queries_and_keys)
            self._pairs.mul_(rotation)
            key_lines.index_copy_(0, lines, self._key)
            value_lines.index_copy_(0, lines, self._value)
            attended = scaled_dot_product_attention(
                self._query, keys.narrow(2, 0, position + 1), values.narrow(2, 0, position + 1)
            )
            update = layer.out(attended.view(1, -1))
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index])
            update = layer.down(layer.activated_up(layer.norm2(x)))
            x = x.add_(update) if scales is None else x.addcmul_(update, scales[2 * index + 1])
        return x


def _supports_single_sequence(matrix: PackedLinear) -> bool:
    return isinstance(matrix, Int8Linear) or (isinstance(matrix, Float32Linear) and matrix.on_cpu)
