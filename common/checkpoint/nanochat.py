"""Converts weights of the NanoChat architecture between our names and those of transformers' `NanoChatForCausalLM`.

The functions compute the same, with one difference: NanoChat rotates the two halves of a head [a, b] in the other
direction. A rotation in that direction of [b, a] is ours of [a, b] with its halves exchanged, so the rows of the
projections to queries and keys are exchanged by halves of each head. The product of queries and keys and their norm do
not depend on this order. The rotary tables are not stored there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from common.config.model import ModelConfig
from common.model.rope import rope_tables

_ENDS: Final = {"token_embeddings": "model.embed_tokens", "output_projection": "lm_head"}
_IN_BLOCK: Final = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "out_proj": "self_attn.o_proj",
    "ffn.0": "mlp.fc1",
    "ffn.3": "mlp.fc2",
}
_ROTATED: Final = ("q_proj.weight", "k_proj.weight")


def has_nanochat_names(state: Mapping[str, Tensor]) -> bool:
    """Return whether the tensors have the names of transformers' NanoChat."""
    return f"{_ENDS['token_embeddings']}.weight" in state


def to_nanochat(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the weights of a model whose configuration `is_nanochat`, with the names and the order of NanoChat."""
    return {exported: _ordered(name, state[name], config) for name, exported in _names(config).items()}


def from_nanochat(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the state dict of our model for weights of NanoChat. Tensors with other names keep them."""
    cos, sin = rope_tables(config.context_length, config.head_dim, config.rope_theta)
    names = {exported: name for name, exported in _names(config).items()}
    weights = {names.get(exported, exported): tensor for exported, tensor in state.items()}
    return {"rope_cos": cos, "rope_sin": sin, **{name: _ordered(name, each, config) for name, each in weights.items()}}


def _names(config: ModelConfig) -> dict[str, str]:
    """Return {our name: name in transformers} of all weights."""
    blocks = {
        f"transformer_blocks.{layer}.{name}": f"model.layers.{layer}.{exported}"
        for layer in range(config.num_layers)
        for name, exported in _IN_BLOCK.items()
    }
    return {f"{name}.weight": f"{exported}.weight" for name, exported in {**_ENDS, **blocks}.items()}


def _ordered(name: str, weight: Tensor, config: ModelConfig) -> Tensor:
    """Return the weight with the halves of each head exchanged, if `name` is a projection to queries or keys."""
    if not name.endswith(_ROTATED) or weight.shape != (config.d_model, config.d_model):
        return weight
    heads = weight.view(config.num_heads, 2, config.head_dim // 2, config.d_model)
    return torch.flip(heads, (1,)).reshape(weight.shape)
