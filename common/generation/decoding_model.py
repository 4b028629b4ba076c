"""A TransformerLM packed for decoding: the same function, in the layout that one token at a time is fast in.

Queries, keys and values come from one matrix. Their columns are reordered so that the two halves of a rotary pair lie
side by side, and a rotation is one complex product (q·k does not change when both are reordered alike). All gates are
computed at once. Shapes: n rows, T time, D model width, H heads, K head width, V vocabulary, G = 2 × layers gates.

Leaves out: training, and any later change of the model's weights. The embedding is shared with the model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from common.generation.cpu.huge_pages import keep_freed_memory
from common.generation.cpu.one_row import OneRow
from common.generation.cpu.packed_layer import Norm, PackedLayer, packed_norm
from common.generation.cpu.packed_linear import Dense, Precision, pack
from common.generation.cpu.per_row_attention import attend_alone, attend_prompts_alone
from common.generation.slot_cache import SlotCache
from common.model import DynamicGate, TransformerLM


class Parts(NamedTuple):
    """The packed weights, for another way of decoding: rotations (context, K / 2) complex, layers, final norm, head."""

    embedding: Tensor
    turns: Tensor
    layers: list[PackedLayer]
    final_norm: Norm
    head: Dense


class DecodingModel:
    """Packed weights of `model`; its dropout plays no part, whatever mode it is in.

    Raises ConfigError for int8 where that cannot run.
    """

    @torch.inference_mode()
    def __init__(self, model: TransformerLM, *, precision: Precision | str = Precision.FLOAT32) -> None:
        keep_freed_memory()
        self.config = model.config
        self.gates_trained = model.gates_trained
        self.device = model.device
        self.precision = Precision(precision)
        self._embedding = model.token_embeddings.weight.detach()
        # Only the first half of the tables: both halves of a head share the frequencies.
        half = self.config.head_dim // 2
        self._turns = torch.complex(model.rope_cos[:, :half].float(), model.rope_sin[:, :half].float())
        self._layers = self._packed(model, self.precision)
        self._rows_alone = self.precision is Precision.INT8
        # int8 pays for few rows, and a prompt is many: its layers read prompts in float32.
        self._fill_layers = self._packed(model, Precision.FLOAT32) if self._rows_alone else self._layers
        self._one_row = OneRow.of(self._layers, self.config)
        self._final_norm = packed_norm(model.final_layer_norm)
        self._head = pack(model.output_projection.weight, model.output_projection.bias, self.precision)
        self._gates = _pack_gates(model.gates) if self.gates_trained else None

    def _packed(self, model: TransformerLM, precision: Precision) -> list[PackedLayer]:
        return [PackedLayer(block, self.config.num_heads, precision) for block in model.blocks]

    @property
    def parts(self) -> Parts:
        """What `decode` multiplies with."""
        return Parts(self._embedding, self._turns, self._layers, self._final_norm, self._head)

    @property
    def nbytes(self) -> int:
        """Memory of the weights."""
        layers = self._layers if self._fill_layers is self._layers else [*self._layers, *self._fill_layers]
        return sum(layer.nbytes for layer in layers) + self._head.nbytes + self._embedding.nbytes

    def new_cache(self, rows: int = 1) -> SlotCache:
        """An empty cache for the model's whole context."""
        c = self.config
        dtype = torch.bfloat16 if self.precision is Precision.BFLOAT16 else torch.float32
        return SlotCache(
            c.num_layers, c.num_heads, c.context_length, c.head_dim, rows=rows, device=self.device, dtype=dtype
        )

    def gate_scales(self, modulation: Tensor, fed: Tensor) -> Tensor | None:
        """What each gate multiplies by, (G, n, D), at modulation (n,); 1 in rows where `fed` (n,) bool is false.

        None where the gates were not trained.
        """
        if self._gates is None:
            return None
        if self._rows_alone and len(modulation) > 1:
            rows = zip(modulation.unbind(), fed.unbind(), strict=True)
            alone = [self.gate_scales(m[None], its[None]) for m, its in rows]
            return torch.cat([scales for scales in alone if scales is not None], dim=1)
        first, first_bias, last, last_bias = self._gates
        inner = gelu(modulation[None, :, None].float() * first[:, None] + first_bias[:, None])
        scales = torch.sigmoid(torch.baddbmm(last_bias[:, None], inner, last))
        return torch.where(fed[None, :, None], scales, 1.0)

    @torch.inference_mode()
    def prefill(self, ids: Tensor, lengths: list[int], cache: SlotCache, first: int) -> tuple[Tensor, Tensor]:
        """Fill rows first..first+n−1 with prompts ids (n, T) int64, right-padded to `lengths`, without modulation.

        Returns logits (n, V) and final states (n, D) after the last token of each.
        """
        return self.read(self.fill(ids, lengths, cache, first), lengths)

    @torch.inference_mode()
    def read(self, states: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """What `prefill` returns, of the states that `fill` gave."""
        ends = torch.tensor([length - 1 for length in lengths], device=states.device)
        hidden = layer_norm(states[torch.arange(len(lengths), device=states.device), ends], *self._final_norm)
        return self._head(hidden), hidden

    @torch.inference_mode()
    def project(self, states: Tensor) -> Tensor:
        """Logits (P, V) of states (P, D) that `fill` gave."""
        return self._head(layer_norm(states, *self._final_norm))

    @torch.inference_mode()
    def fill(self, ids: Tensor, lengths: list[int], cache: SlotCache, first: int) -> Tensor:
        """`prefill` up to the states (n, T, D) of all positions, before the final layer norm."""
        n, T = ids.shape
        D, H = self.config.d_model, self.config.num_heads
        x = self._embedding[ids.reshape(-1)].float()
        turns = self._turns[:T, None, None]
        for index, layer in enumerate(self._fill_layers):
            qkv = layer.qkv(layer_norm(x, *layer.norm1))
            turned = _turn(qkv.view(n, T, 3, H, -1)[:, :, :2], turns)
            q, k = turned[:, :, 0].transpose(1, 2), turned[:, :, 1].transpose(1, 2)
            v = qkv.view(n, T, 3, H, -1)[:, :, 2].transpose(1, 2)
            cache.write(index, first, k, v)
            if self._rows_alone:
                attended = attend_prompts_alone(q, k, v, lengths)
            else:
                attended = scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer.out(attended.transpose(1, 2).reshape(n * T, D))
            x = x + layer.down(layer.up.gelu(layer_norm(x, *layer.norm2)))
        cache.set_lengths(first, lengths)
        return x.view(n, T, D)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, cache: SlotCache, scales: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append tokens (n,) int64 to the n rows in use, with gates at `scales` (G, n, D) if given.

        Returns logits (n, V), new, and final states (n, D). Raises ValueError when a row is full.
        """
        n, D, H = len(tokens), self.config.d_model, self.config.num_heads
        x = self._embedding.index_select(0, tokens).float()
        if n == 1 and self._one_row is not None:
            x = self._one_row(x, self._turns[cache.next_position()], cache, scales)
            cache.advance()
            hidden = layer_norm(x, *self._final_norm)
            return self._head(hidden), hidden
        step = cache.step()
        turns = self._turns[step.positions][:, None, None]
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer_norm(x, *layer.norm1))
            turned = _turn(qkv.view(n, 3, H, -1)[:, :2], turns)
            keys, values = cache.append(index, step, turned[:, 1], qkv.view(n, 3, H, -1)[:, 2])
            q = turned[:, 0].unsqueeze(2).to(keys.dtype)
            if self._rows_alone:
                attended = attend_alone(q, keys, values, [length + 1 for length in cache.lengths])
            else:
                attended = scaled_dot_product_attention(q, keys, values, attn_mask=step.mask)
            update = layer.out(attended.reshape(n, D).float())
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index])
            update = layer.down(layer.up.gelu(layer_norm(x, *layer.norm2)))
            x = x + update if scales is None else torch.addcmul(x, update, scales[2 * index + 1])
        cache.advance()
        hidden = layer_norm(x, *self._final_norm)
        return self._head(hidden), hidden


def _turn(heads: Tensor, turns: Tensor) -> Tensor:
    """Rotate heads (…, K), pairs side by side, by unit complex numbers that broadcast to (…, K / 2)."""
    pairs = torch.view_as_complex(torch.unflatten(heads, -1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _pack_gates(gates: list[DynamicGate]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First weights and biases (G, 32), last weights (G, 32, D) and biases (G, D)."""
    named = [dict(gate.net.named_parameters()) for gate in gates]

    def stacked(name: str) -> Tensor:
        return torch.stack([parameters[name].detach().float() for parameters in named])

    last = stacked("2.weight").transpose(1, 2).contiguous()
    return stacked("0.weight").squeeze(2), stacked("0.bias"), last, stacked("2.bias")
