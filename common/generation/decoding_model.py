"""A TransformerLM packed for decoding: the same function in a layout that is fast for one token at a time.

Queries, keys and values are computed with one matrix. Its columns are reordered so that the two numbers of a rotary
pair are neighbours and a rotation is one complex product. The product q·k does not change, because q and k are
reordered in the same way. All gates are computed at once. Shapes: n slots, T time, D model width, H heads, K head
width, V vocabulary, G = 2 × layers gates.

A packed model cannot be trained, and later changes of the model's weights do not affect it, except for the embedding,
which is shared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from common.generation.cpu.huge_pages import keep_freed_memory
from common.generation.cpu.packed_layer import Norm, PackedLayer, packed_norm
from common.generation.cpu.packed_linear import PackedLinear, Precision, pack
from common.generation.cpu.per_row_attention import attend_per_row, attend_prompts_per_row
from common.generation.cpu.single_sequence import SingleSequenceDecoder
from common.generation.slot_cache import SlotCache
from common.model import DynamicGate, TransformerLM
from common.model.transfer import to_device


class PackedWeights(NamedTuple):
    """The packed weights that the decoding steps in `cuda.step` use. `rotations` (context, K / 2) are complex."""

    embedding: Tensor
    rotations: Tensor
    layers: list[PackedLayer]
    final_norm: Norm
    head: PackedLinear


class DecodingModel:
    """The packed weights of `model`, and prefill and decoding with these weights. Dropout is never applied.

    Raises ConfigError for int8 on a device other than the CPU.
    """

    @torch.inference_mode()
    def __init__(self, model: TransformerLM, *, precision: Precision | str = Precision.FLOAT32) -> None:
        keep_freed_memory()
        self.config = model.config
        self.gates_trained = model.gates_trained
        self.vocabulary = model.vocabulary
        self.device = model.device
        self.precision = Precision(precision)
        self._embedding = model.token_embeddings.weight.detach()
        # The second half of the rotary tables is not needed, because it equals the first half.
        half = self.config.head_dim // 2
        self._rotations = torch.complex(model.rope_cos[:, :half].float(), model.rope_sin[:, :half].float())
        self._layers = self._packed(model, self.precision)
        self._per_row_attention = self.precision is Precision.INT8
        # int8 is faster only for few rows. A prompt has many rows, so prompts go through float32 layers.
        self._prefill_layers = self._packed(model, Precision.FLOAT32) if self._per_row_attention else self._layers
        self._single_sequence = SingleSequenceDecoder.for_layers(self._layers, self.config)
        self._final_norm = packed_norm(model.final_layer_norm)
        self._head = pack(model.output_projection.weight, model.output_projection.bias, self.precision)
        self._gates = _pack_gates(model.gates) if self.gates_trained else None

    def _packed(self, model: TransformerLM, precision: Precision) -> list[PackedLayer]:
        return [PackedLayer(block, self.config.num_heads, precision) for block in model.blocks]

    @property
    def packed_weights(self) -> PackedWeights:
        """The weights that `decode` multiplies with."""
        return PackedWeights(self._embedding, self._rotations, self._layers, self._final_norm, self._head)

    @property
    def nbytes(self) -> int:
        """Return the memory of the weights in bytes."""
        layers = self._layers if self._prefill_layers is self._layers else [*self._layers, *self._prefill_layers]
        return sum(layer.nbytes for layer in layers) + self._head.nbytes + self._embedding.nbytes

    def new_cache(self, slots: int = 1) -> SlotCache:
        """Return an empty cache with room for the model's whole context in each slot."""
        c = self.config
        dtype = torch.bfloat16 if self.precision is Precision.BFLOAT16 else torch.float32
        return SlotCache(
            c.num_layers, c.num_heads, c.context_length, c.head_dim, slots=slots, device=self.device, dtype=dtype
        )

    def gate_scales(self, modulation: Tensor, gated: Tensor) -> Tensor | None:
        """Return the factors (G, n, D) of the gates at modulation (n,), or None if the gates were not trained.

        The factors are 1 where `gated` (n,) bool is false.
        """
        if self._gates is None:
            return None
        if self._per_row_attention and len(modulation) > 1:
            rows = zip(modulation.unbind(), gated.unbind(), strict=True)
            per_row = [self.gate_scales(m[None], row_gated[None]) for m, row_gated in rows]
            return torch.cat([scales for scales in per_row if scales is not None], dim=1)
        first, first_bias, last, last_bias = self._gates
        inner = gelu(modulation[None, :, None].float() * first[:, None] + first_bias[:, None])
        scales = torch.sigmoid(torch.baddbmm(last_bias[:, None], inner, last))
        return torch.where(gated[None, :, None], scales, 1.0)

    @torch.inference_mode()
    def prefill(self, ids: Tensor, lengths: list[int], cache: SlotCache, first: int) -> tuple[Tensor, Tensor]:
        """Read prompts into the cache slots first..first+n−1, without modulation.

        ids (n, T) int64 holds the prompts; the tokens of prompt i beyond `lengths[i]` are padding.
        Returns logits (n, V) and final states (n, D) after the last token of each prompt.
        """
        return self.last_logits(self.prefill_states(ids, lengths, cache, first), lengths)

    @torch.inference_mode()
    def last_logits(self, states: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Return the results of `prefill` for states (n, T, D) that `prefill_states` returned."""
        ends = to_device(torch.tensor([length - 1 for length in lengths]), states.device)
        hidden = layer_norm(states[torch.arange(len(lengths), device=states.device), ends], *self._final_norm)
        return self._head(hidden), hidden

    @torch.inference_mode()
    def project(self, states: Tensor) -> Tensor:
        """Return logits (P, V) of states (P, D) that `prefill_states` returned."""
        return self._head(layer_norm(states, *self._final_norm))

    @torch.inference_mode()
    def prefill_states(self, ids: Tensor, lengths: list[int], cache: SlotCache, first: int) -> Tensor:
        """Fill the cache as `prefill` does and return the states (n, T, D) of all positions before the final norm."""
        n, T = ids.shape
        D, H = self.config.d_model, self.config.num_heads
        x = self._embedding[ids.reshape(-1)].float()
        rotations = self._rotations[:T, None, None]
        for index, layer in enumerate(self._prefill_layers):
            qkv = layer.qkv(layer_norm(x, *layer.norm1))
            rotated = _rotate(qkv.view(n, T, 3, H, -1)[:, :, :2], rotations)
            q, k = rotated[:, :, 0].transpose(1, 2), rotated[:, :, 1].transpose(1, 2)
            v = qkv.view(n, T, 3, H, -1)[:, :, 2].transpose(1, 2)
            cache.write(index, first, k, v)
            if self._per_row_attention:
                attended = attend_prompts_per_row(q, k, v, lengths)
            else:
                attended = scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer.out(attended.transpose(1, 2).reshape(n * T, D))
            x = x + layer.down(layer.up.gelu(layer_norm(x, *layer.norm2)))
        cache.set_lengths(first, lengths)
        return x.view(n, T, D)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, cache: SlotCache, scales: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append tokens (n,) int64 to the n slots in use; `scales` (G, n, D) are the factors of the gates, if any.

        Returns logits (n, V) in a new tensor and final states (n, D). Raises ValueError when a slot is full.
        """
        n, D, H = len(tokens), self.config.d_model, self.config.num_heads
        x = self._embedding.index_select(0, tokens).float()
        if n == 1 and self._single_sequence is not None:
            x = self._single_sequence(x, self._rotations[cache.max_next_position()], cache, scales)
            cache.advance()
            hidden = layer_norm(x, *self._final_norm)
            return self._head(hidden), hidden
        target = cache.next_positions()
        rotations = self._rotations[target.positions][:, None, None]
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer_norm(x, *layer.norm1))
            rotated = _rotate(qkv.view(n, 3, H, -1)[:, :2], rotations)
            keys, values = cache.append(index, target, rotated[:, 1], qkv.view(n, 3, H, -1)[:, 2])
            q = rotated[:, 0].unsqueeze(2).to(keys.dtype)
            if self._per_row_attention:
                attended = attend_per_row(q, keys, values, [length + 1 for length in cache.lengths])
            else:
                attended = scaled_dot_product_attention(q, keys, values, attn_mask=target.mask)
            update = layer.out(attended.reshape(n, D).float())
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index])
            update = layer.down(layer.up.gelu(layer_norm(x, *layer.norm2)))
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index + 1])
        cache.advance()
        hidden = layer_norm(x, *self._final_norm)
        return self._head(hidden), hidden


def _rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    """Rotate heads (…, K) by unit complex numbers that broadcast to (…, K / 2). The two numbers of a rotary pair are
    neighbours."""
    pairs = torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2)


def _pack_gates(gates: list[DynamicGate]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first weights and biases (G, 32), the last weights (G, 32, D) and biases (G, D) of all gates."""
    named = [dict(gate.net.named_parameters()) for gate in gates]

    def stacked(name: str) -> Tensor:
        return torch.stack([parameters[name].detach().float() for parameters in named])

    last = stacked("2.weight").transpose(1, 2).contiguous()
    return stacked("0.weight").squeeze(2), stacked("0.bias"), last, stacked("2.bias")
