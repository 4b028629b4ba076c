"""TransformerLM: computes logits from tokens, for whole sequences or one token at a time with a cache.

Shapes: B batch, T time, D model width, H heads, K head width, V vocabulary, S cached positions. The state dict has the
names of the original's format. Positions start at 0 in every call of `forward`. Sliding windows are in
`common.generation.window`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from common.config.model import ModelConfig
from common.data.vocabulary import gpt2_vocabulary
from common.model.block import BlockBits, TransformerBlock
from common.model.dropout import DropoutBits, dropout
from common.model.gate import DynamicGate, NoGate
from common.model.kv_cache import KVCache
from common.model.norm import make_norm, rms_norm, train_rms_norm
from common.model.rope import rope_tables


class TransformerLM(nn.Module):
    """A decoder-only transformer. The default configuration has 30,623,057 parameters, without the rotary tables."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gates_trained = False
        """Whether the model was trained with modulation. Only then may a controller pass modulation to the gates."""
        self.vocabulary = gpt2_vocabulary()
        """The vocabulary of the token ids. Whoever trains or loads a model with its own vocabulary sets it."""
        cos, sin = rope_tables(config.context_length, config.head_dim, config.rope_theta)
        self.register_buffer("rope_cos", cos)
        self.register_buffer("rope_sin", sin)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.final_layer_norm = make_norm(config)
        self.output_projection = nn.Linear(config.d_model, config.vocab_size, bias=config.bias)
        nn.init.normal_(self.token_embeddings.weight, std=0.02)
        nn.init.normal_(self.output_projection.weight, std=0.02)
        if config.bias:
            nn.init.zeros_(self.output_projection.bias)

    @property
    def blocks(self) -> list[TransformerBlock]:
        """The transformer blocks in order."""
        return [cast(TransformerBlock, block) for block in self.transformer_blocks]

    @property
    def gates(self) -> list[DynamicGate]:
        """All gates in the order block 0 attention, block 0 feed-forward, block 1 attention, …; [] without gates."""
        places = [place for block in self.blocks for place in (block.attn_gate, block.ffn_gate)]
        return [place for place in places if isinstance(place, DynamicGate)]

    @property
    def num_parameters(self) -> int:
        """The number of all parameters, trainable or frozen, without the rotary tables."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.token_embeddings.weight.device

    def without_gates(self) -> TransformerLM:
        """Return a copy without gates, which computes what this model computes without modulation."""
        plain = deepcopy(self)
        plain.config = self.config.model_copy(update={"gates": False})
        plain.gates_trained = False
        for block in plain.blocks:
            block.attn_gate, block.ffn_gate = NoGate(), NoGate()
        return plain

    def forward(self, input_ids: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V) for input_ids (B, T) int64; modulation (B, 1) in [0, 1], or None for no gating.

        Raises ValueError when T is 0 or above the context length, or when modulation is not (B, 1) or is given to a
        model without gates.
        """
        return self.project(self.hidden_states(input_ids, modulation))

    def hidden_states(self, input_ids: Tensor, modulation: Tensor | None = None) -> Tensor:
        """Return the states (B, T, D) after the final layer norm; arguments and errors are as in `forward`."""
        B, T = self._check(input_ids, self.config.context_length)
        m = self._modulation(modulation, B)
        cos, sin = self.rope_cos[:T], self.rope_sin[:T]
        if self.training and self.device.type == "cpu":
            x = self._train_on_cpu(input_ids, cos, sin, m)
        else:
            x = self.dropout(self._embed(input_ids))
            for block in self.transformer_blocks:
                x = block(x, cos, sin, m)
        return cast(Tensor, self.final_layer_norm(x))

    def _train_on_cpu(self, input_ids: Tensor, cos: Tensor, sin: Tensor, m: Tensor | None) -> Tensor:
        c, (B, T) = self.config, input_ids.shape
        x: Tensor = self.token_embeddings(input_ids)
        if c.embedding_norm:
            x = train_rms_norm(x)
        if c.dropout == 0.0:
            for block in self.blocks:
                x = block.train_on_cpu(x, cos, sin, m, None)
            return x
        bits = DropoutBits(x.numel() + c.num_layers * BlockBits.integers(c, B, T))
        x = dropout(x, bits.take(B, T, c.d_model), c.dropout)
        for block in self.blocks:
            x = block.train_on_cpu(x, cos, sin, m, BlockBits.take(bits, c, B, T))
        return x

    def use_compiled_blocks(self, compiled: bool) -> None:
        """Let the training on a CPU use torch.compile for the blocks, or no longer. Inference is not affected."""
        for block in self.blocks:
            block.use_compiled_steps(compiled)

    def project(self, hidden: Tensor) -> Tensor:
        """Return logits (…, V) for states (…, D)."""
        logits, cap = cast(Tensor, self.output_projection(hidden)), self.config.logit_softcap
        if cap is None:
            return logits
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        return torch.tanh(logits / cap) * cap

    def new_cache(
        self,
        batch_size: int,
        *,
        capacity: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """Return an empty cache for `batch_size` rows of at most `capacity` positions (default: context length)."""
        c = self.config
        if capacity is not None and not 1 <= capacity <= c.context_length:
            raise ValueError(f"cache capacity {capacity} is outside 1..{c.context_length}, the context length")
        return KVCache(
            c.num_layers,
            batch_size,
            c.num_heads,
            capacity or c.context_length,
            c.head_dim,
            device=device or self.device,
            dtype=dtype or self.token_embeddings.weight.dtype,
        )

    @torch.no_grad()
    def prefill(
        self,
        input_ids: Tensor,
        cache: KVCache,
        lengths: Tensor | None = None,
        modulation: Tensor | None = None,
        *,
        rows: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fill cache rows with whole prompts, which replace the previous content of these rows.

        input_ids (n, T) int64 are right-padded to `lengths` (n,) if given; modulation (n, 1). `rows` are the n cache
        rows to fill; None stands for all B rows. So a row can be replaced while others continue. Returns logits (n, V)
        and states (n, D) after the final layer norm, for the last token of each prompt before its padding. Raises
        ValueError on a wrong shape or T above the cache's capacity.
        """
        n, T = self._check(input_ids, cache.capacity)
        expected = cache.batch_size if rows is None else len(rows)
        if n != expected:
            raise ValueError(f"{n} prompts for {expected} cache rows; give one prompt per row")
        if lengths is not None and lengths.shape != (n,):
            raise ValueError(f"lengths has shape {tuple(lengths.shape)}, expected ({n},)")
        m = self._modulation(modulation, n)
        x = self._embed(input_ids)
        cos, sin = self.rope_cos[:T], self.rope_sin[:T]
        for layer, block in enumerate(self.blocks):
            x = block.prefill(x, cos, sin, m, cache, layer, rows)
        cache.set_lengths(lengths, T, rows)
        if lengths is None:
            last = x[:, -1]
        else:
            index = (lengths.to(x.device) - 1).view(n, 1, 1).expand(n, 1, x.shape[-1])
            last = x.gather(1, index)[:, 0]
        hidden = self.final_layer_norm(last)
        return self.project(hidden), hidden

    @torch.no_grad()
    def decode_one_token(
        self, token: Tensor, cache: KVCache, modulation: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Append one token per cache row, `token` (B,) int64, at the next position of each row.

        modulation (B, 1) applies only to these tokens. Returns logits (B, V) and states (B, D) after the final layer
        norm. Does not wait for the device. Raises ValueError when a row is full or a shape is wrong.
        """
        if token.shape != (cache.batch_size,):
            raise ValueError(f"token has shape {tuple(token.shape)}, expected ({cache.batch_size},), one per cache row")
        cache.check_room()
        m = self._modulation(modulation, cache.batch_size)
        x = self._embed(token).unsqueeze(1)
        cos = self.rope_cos[cache.lengths][:, None, None]
        sin = self.rope_sin[cache.lengths][:, None, None]
        mask = cache.mask()
        for layer, block in enumerate(self.blocks):
            x = block.decode(x, cos, sin, mask, m, cache, layer)
        cache.advance()
        hidden = self.final_layer_norm(x[:, 0])
        return self.project(hidden), hidden

    def _embed(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.token_embeddings(tokens)
        return rms_norm(x) if self.config.embedding_norm else x

    def _check(self, input_ids: Tensor, limit: int) -> tuple[int, int]:
        if input_ids.dim() != 2 or not 1 <= input_ids.shape[1] <= limit:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}, expected (batch, 1..{limit}); "
                f"pass at most the last {limit} tokens"
            )
        return input_ids.shape[0], input_ids.shape[1]

    def _modulation(self, modulation: Tensor | None, batch: int) -> Tensor | None:
        if modulation is None:
            return None
        if not self.config.gates:
            raise ValueError("this model has no gates (model.gates is false); pass no modulation")
        if modulation.shape != (batch, self.config.gate_dim):
            raise ValueError(
                f"modulation has shape {tuple(modulation.shape)}, expected ({batch}, {self.config.gate_dim})"
            )
        return modulation.to(self.token_embeddings.weight.dtype)
