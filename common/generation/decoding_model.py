"""A TransformerLM packed for decoding: the same function in a layout that is fast for one token at a time.

Queries, keys and values are computed with one matrix. Its columns are reordered so that the two numbers of a rotary
pair are neighbours and a rotation is one complex product. The product q·k does not change, because q and k are
reordered in the same way. All gates are computed at once. Shapes: n slots, T time, D model width, H heads, K head
width, V vocabulary, G = 2 × layers gates.

On a CPU, the C++ code of `native` can compute the same function with weights that it packs itself (`Backend`).

A packed model cannot be trained, and later changes of the model's weights do not affect it, except for the embedding,
which is shared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, scaled_dot_product_attention

from common.generation.cpu.huge_pages import keep_freed_memory
from common.generation.cpu.packed_layer import PackedLayer, PackedNorm, pack_gates
from common.generation.cpu.packed_linear import PackedLinear, Precision, SoftCapped, pack
from common.generation.cpu.per_row_attention import attend_per_row, attend_prompts_per_row
from common.generation.cpu.single_sequence import SingleSequenceDecoder
from common.generation.native.backend import Backend, native_model
from common.generation.slot_cache import SlotCache
from common.model import TransformerLM
from common.model.norm import rms_norm
from common.model.transfer import to_device


class PackedWeights(NamedTuple):
    """The packed weights that the decoding steps in `cuda.step` use. `rotations` (context, K / 2) are complex."""

    rotations: Tensor
    layers: list[PackedLayer]
    final_norm: PackedNorm
    head: PackedLinear


class DecodingModel:
    """The packed weights of `model`, and prefill and decoding with these weights. Dropout is never applied.

    `backend` is the code that computes with them; `effective_backend` is the result of `auto`. Raises ConfigError for
    int8 on a device other than the CPU, and for a native backend that cannot be used.
    """

    @torch.inference_mode()
    def __init__(
        self,
        model: TransformerLM,
        *,
        precision: Precision | str = Precision.FLOAT32,
        backend: Backend | str = Backend.TORCH,
    ) -> None:
        keep_freed_memory()
        self.config = model.config
        self.gates_trained = model.gates_trained
        self.vocabulary = model.vocabulary
        self.device = model.device
        self.precision = Precision(precision)
        self._native = native_model(model, self.precision, Backend(backend))
        self.effective_backend = Backend.TORCH if self._native is None else Backend.NATIVE
        if self._native is None:
            self._pack(model)

    def _pack(self, model: TransformerLM) -> None:
        """Pack the weights for PyTorch."""
        self._embedding = model.token_embeddings.weight.detach()
        # The second half of the rotary tables is not needed, because it equals the first half.
        half = self.config.head_dim // 2
        self._rotations = torch.complex(model.rope_cos[:, :half].float(), model.rope_sin[:, :half].float())
        self._layers = self._packed(model, self.precision)
        self._per_row_attention = self.precision is Precision.INT8
        # int8 is faster only for few rows. A prompt has many rows, so prompts go through float32 layers.
        self._prefill_layers = self._packed(model, Precision.FLOAT32) if self._per_row_attention else self._layers
        self._single_sequence = SingleSequenceDecoder.for_layers(self._layers, self.config)
        self._final_norm = PackedNorm(model.final_layer_norm)
        head = pack(model.output_projection.weight, model.output_projection.bias, self.precision)
        cap = self.config.logit_softcap
        self._head: PackedLinear = head if cap is None else SoftCapped(head, cap)
        self._gates = pack_gates(model.gates) if self.gates_trained else None

    def _packed(self, model: TransformerLM, precision: Precision) -> list[PackedLayer]:
        return [PackedLayer(block, self.config, precision) for block in model.blocks]

    @property
    def packed_weights(self) -> PackedWeights:
        """The weights that `decode` multiplies with."""
        return PackedWeights(self._rotations, self._layers, self._final_norm, self._head)

    @property
    def nbytes(self) -> int:
        """Return the memory of the weights in bytes."""
        if self._native is not None:
            return self._native.nbytes
        layers = self._layers if self._prefill_layers is self._layers else [*self._layers, *self._prefill_layers]
        return sum(layer.nbytes for layer in layers) + self._head.nbytes + self._embedding.nbytes

    def new_cache(self, slots: int = 1) -> SlotCache:
        """Return an empty cache with room for the model's whole context in each slot."""
        c = self.config
        dtype = torch.bfloat16 if self.precision is Precision.BFLOAT16 else torch.float32
        return SlotCache(
            c.num_layers, c.num_heads, c.context_length, c.head_dim, slots=slots, device=self.device, dtype=dtype
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the states (n, D) with which the blocks start, for tokens (n,) int64."""
        x = self._embedding.index_select(0, tokens).float()
        return rms_norm(x) if self.config.embedding_norm else x

    def gate_scales(self, modulation: Tensor, gated: Tensor) -> Tensor | None:
        """Return the factors (G, n, D) of the gates at modulation (n,), or None if the gates were not trained.

        The factors are 1 where `gated` (n,) bool is false.
        """
        if self._native is not None:
            return self._native.gate_scales(modulation, gated)
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
        last = states[torch.arange(len(lengths), device=states.device), ends]
        if self._native is not None:
            return self._native.project(last)
        hidden = self._final_norm(last)
        return self._head(hidden), hidden

    @torch.inference_mode()
    def project(self, states: Tensor) -> Tensor:
        """Return logits (P, V) of states (P, D) that `prefill_states` returned."""
        if self._native is not None:
            return self._native.project(states)[0]
        return self._head(self._final_norm(states))

    @torch.inference_mode()
    def prefill_states(self, ids: Tensor, lengths: list[int], cache: SlotCache, first: int) -> Tensor:
        """Fill the cache as `prefill` does and return the states (n, T, D) of all positions before the final norm."""
        if self._native is not None:
            return self._native.prefill_states(ids, lengths, cache, first)
        n, T = ids.shape
        D, H = self.config.d_model, self.config.num_heads
        x = self.embed(ids.reshape(-1))
        rotations = self._rotations[:T, None, None]
        for index, layer in enumerate(self._prefill_layers):
            qkv = layer.qkv(layer.norm1(x))
            rotated = _rotate(layer.normalised(qkv.view(n, T, 3, H, -1)[:, :, :2]), rotations)
            q, k = rotated[:, :, 0].transpose(1, 2), rotated[:, :, 1].transpose(1, 2)
            v = qkv.view(n, T, 3, H, -1)[:, :, 2].transpose(1, 2)
            cache.write(index, first, k, v)
            if self._per_row_attention:
                attended = attend_prompts_per_row(q, k, v, lengths)
            else:
                attended = scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer.out(attended.transpose(1, 2).reshape(n * T, D))
            x = x + layer.down(layer.activated_up(layer.norm2(x)))
        cache.set_lengths(first, lengths)
        return x.view(n, T, D)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, cache: SlotCache, scales: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append tokens (n,) int64 to the n slots in use; `scales` (G, n, D) are the factors of the gates, if any.

        Returns logits (n, V) in a new tensor and final states (n, D). Raises ValueError when a slot is full.
        """
        if self._native is not None:
            return self._native.decode(tokens, cache, scales)
        n, D, H = len(tokens), self.config.d_model, self.config.num_heads
        x = self.embed(tokens)
        if n == 1 and self._single_sequence is not None:
            x = self._single_sequence(x, self._rotations[cache.max_next_position()], cache, scales)
            cache.advance()
            hidden = self._final_norm(x)
            return self._head(hidden), hidden
        target = cache.next_positions()
        rotations = self._rotations[target.positions][:, None, None]
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm1(x))
            rotated = _rotate(layer.normalised(qkv.view(n, 3, H, -1)[:, :2]), rotations)
            keys, values = cache.append(index, target, rotated[:, 1], qkv.view(n, 3, H, -1)[:, 2])
            q = rotated[:, 0].unsqueeze(2).to(keys.dtype)
            if self._per_row_attention:
                attended = attend_per_row(q, keys, values, [length + 1 for length in cache.lengths])
            else:
                attended = scaled_dot_product_attention(q, keys, values, attn_mask=target.mask)
            update = layer.out(attended.reshape(n, D).float())
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index])
            update = layer.down(layer.activated_up(layer.norm2(x)))
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index + 1])
        cache.advance()
        hidden = self._final_norm(x)
        return self._head(hidden), hidden


def _rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    """Rotate heads (…, K) by unit complex numbers that broadcast to (…, K / 2). The two numbers of a rotary pair are
    neighbours."""
    pairs = torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2)
