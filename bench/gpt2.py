"""The GPT-2 of the package transformers with the shape of a model of Tidal, as a peer of benchmarks."""

from __future__ import annotations

from typing import Any

from common.config import ModelConfig


def gpt2(shape: ModelConfig, *, tied_head: bool = False) -> Any:
    """Return a `GPT2LMHeadModel` with random weights and the dropout of `shape`.

    With `tied_head`, the vocabulary head shares its weights with the token embedding. Needs the extra `bench`.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.context_length,
        n_embd=shape.d_model,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_inner=shape.ffn_dim,
        tie_word_embeddings=tied_head,
        resid_pdrop=shape.dropout,
        embd_pdrop=shape.dropout,
        attn_pdrop=shape.dropout,
    )
    return GPT2LMHeadModel(config)
