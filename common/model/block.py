"""One pre-norm transformer block: x + gate(attention(ln1(x))), then x + gate(ffn(ln2(x))).

The submodules have the names that the original's checkpoint files use. `common.config.model.ModelConfig` describes the
options of the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from common.config.model import ModelConfig
from common.model.activation import TRAINING_ACTIVATIONS, ReLUSquared
from common.model.attention import cached_attention, causal_attention, merge_heads, split_heads
from common.model.dropout import DropoutBits, add_after_dropout, dropout
from common.model.gate import DynamicGate, NoGate
from common.model.kv_cache import KVCache
from common.model.norm import make_norm, rms_norm
from common.model.rope import apply_rotary
from common.model.training_attention import integers_needed, training_attention


class BlockBits(NamedTuple):
    """The random integers (int16) for the dropout of one block in one forward pass."""

    attention: Tensor
    """For the attention probabilities of each sequence, (B, n)."""
    attended: Tensor
    """For the result of the attention, (B, T, D)."""
    ffn_hidden: Tensor
    """For the activations of the feed-forward network, (B, T, F)."""
    ffn_output: Tensor
    """For the result of the feed-forward network, (B, T, D)."""

    @classmethod
    def take(cls, bits: DropoutBits, config: ModelConfig, B: int, T: int) -> Self:
        """Take the integers for a block and input (B, T, D)."""
        D = config.d_model
        return cls(
            bits.take(B, integers_needed(T, config.num_heads)),
            bits.take(B, T, D),
            bits.take(B, T, config.ffn_dim),
            bits.take(B, T, D),
        )

    @staticmethod
    def integers(config: ModelConfig, B: int, T: int) -> int:
        """Return the number of integers that `take` takes."""
        return B * (integers_needed(T, config.num_heads) + T * (2 * config.d_model + config.ffn_dim))


class TransformerBlock(nn.Module):
    """A transformer block: attention and feed-forward network, whose outputs are each scaled by a gate, if any."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, bias = config.d_model, config.bias
        self.num_heads = config.num_heads
        self.dropout_p = config.dropout
        self.qk_norm = config.qk_norm
        self.q_proj = nn.Linear(D, D, bias=bias)
        self.k_proj = nn.Linear(D, D, bias=bias)
        self.v_proj = nn.Linear(D, D, bias=bias)
        self.out_proj = nn.Linear(D, D, bias=bias)
        self.ffn = nn.Sequential(
            nn.Linear(D, config.ffn_dim, bias=bias),
            ReLUSquared() if config.activation == "relu2" else nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.ffn_dim, D, bias=bias),
            nn.Dropout(config.dropout),
        )
        self.ln1 = make_norm(config)
        self.ln2 = make_norm(config)
        self.attn_gate = _make_gate(config)
        self.ffn_gate = _make_gate(config)
        self.dropout = nn.Dropout(config.dropout)
        self.activate = TRAINING_ACTIVATIONS[config.activation]
        self._steps = _EAGER_STEPS
        if config.zero_init:
            for last in (self.out_proj, self.ffn[3]):
                for parameter in last.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, modulation: Tensor | None) -> Tensor:
        """Return the block's output (B, T, D) for x (B, T, D) at positions 0..T−1, with rotary tables (T, K)."""
        q, k, v = self._project(x, cos, sin)
        attended = causal_attention(q, k, v, dropout=self.dropout_p if self.training else 0.0)
        return self._finish(x, attended, modulation)

    def train_on_cpu(
        self, x: Tensor, cos: Tensor, sin: Tensor, modulation: Tensor | None, bits: BlockBits | None
    ) -> Tensor:
        """Return the same as `forward` in training mode, computed in the fastest way for a CPU.

        `bits` replace torch's random numbers; None means no dropout. The dropout of the feed-forward
        network's result and the dropout after its gate are computed as one with the probability 1 − (1 − p)²: an
        element is kept if both would keep it, and the gate between them only scales it.
        """
        qkv = self._steps.project(self, x)
        integers = None if bits is None else bits.attention
        attended = training_attention(qkv, cos, sin, self.num_heads, integers, self.dropout_p, qk_norm=self.qk_norm)
        return self._steps.finish(self, x, attended, modulation, bits)

    def use_compiled_steps(self, compiled: bool) -> None:
        """Let `train_on_cpu` use torch.compile for what it computes before and after the attention, or no longer.

        The next call with a new shape compiles.
        """
        self._steps = _compiled_steps() if compiled else _EAGER_STEPS

    def prefill(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        modulation: Tensor | None,
        cache: KVCache,
        layer: int,
        rows: Sequence[int] | None,
    ) -> Tensor:
        """Return the same as `forward`, and write keys and values into `rows` of the cache."""
        q, k, v = self._project(x, cos, sin)
        cache.fill(layer, k, v, rows)
        return self._finish(x, causal_attention(q, k, v), modulation)

    def decode(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        modulation: Tensor | None,
        cache: KVCache,
        layer: int,
    ) -> Tensor:
        """Return the output for one new position per sequence, and append its keys and values to the cache.

        x (B, 1, D), rotary tables (B, 1, 1, K), mask (B, 1, 1, S).
        """
        q, k, v = self._project(x, cos, sin)
        keys, values = cache.append(layer, k[:, :, 0], v[:, :, 0])
        return self._finish(x, cached_attention(q, keys, values, mask), modulation)

    def _project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.ln1(x)
        q = apply_rotary(split_heads(self.q_proj(h), self.num_heads), cos, sin)
        k = apply_rotary(split_heads(self.k_proj(h), self.num_heads), cos, sin)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        return q, k, split_heads(self.v_proj(h), self.num_heads)

    def _finish(self, x: Tensor, attended: Tensor, modulation: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attn_gate(self.out_proj(merge_heads(attended)), modulation))
        y: Tensor = x + self.dropout(self.ffn_gate(self.ffn(self.ln2(x)), modulation))
        return y


def _make_gate(config: ModelConfig) -> DynamicGate | NoGate:
    return DynamicGate(config.gate_dim, config.gate_hidden_dim, config.d_model) if config.gates else NoGate()


class _TrainingSteps(NamedTuple):
    """The parts of `TransformerBlock.train_on_cpu` that torch.compile can fuse."""

    project: Callable[[TransformerBlock, Tensor], Tensor]
    finish: Callable[[TransformerBlock, Tensor, Tensor, Tensor | None, BlockBits | None], Tensor]


def _project(block: TransformerBlock, x: Tensor) -> Tensor:
    """Return queries, keys and values (B, T, 3·D) of all heads for x (B, T, D)."""
    projections = (block.q_proj, block.k_proj, block.v_proj)
    weight = torch.cat([each.weight for each in projections])
    biases: list[Tensor] = [each.bias for each in projections if each.bias is not None]
    return linear(block.ln1(x), weight, torch.cat(biases) if biases else None)


def _finish(
    block: TransformerBlock, x: Tensor, attended: Tensor, modulation: Tensor | None, bits: BlockBits | None
) -> Tensor:
    """Return the block's output for its input x and the attention's result, both (B, T, D)."""
    p = block.dropout_p
    y = block.attn_gate(block.out_proj(attended), modulation)
    x = x + y if bits is None else add_after_dropout(x, y, bits.attended, p)
    hidden = block.activate(block.ffn[0](block.ln2(x)))
    if bits is not None:
        hidden = dropout(hidden, bits.ffn_hidden, p)
    y = block.ffn_gate(block.ffn[3](hidden), modulation)
    return x + y if bits is None else add_after_dropout(x, y, bits.ffn_output, 1.0 - (1.0 - p) ** 2)


_EAGER_STEPS = _TrainingSteps(_project, _finish)


@lru_cache(maxsize=1)
def _compiled_steps() -> _TrainingSteps:
    """Return the compiled steps, which all blocks of a process share, so that each is compiled once per shape."""
    return _TrainingSteps(*(torch.compile(step, dynamic=False) for step in _EAGER_STEPS))
