"""The architectures that tests of the model compare with independent answers."""

from __future__ import annotations

from typing import Any

from common.config.model import NANOCHAT, ModelConfig

SMALL = {"vocab_size": 53, "d_model": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24, "context_length": 32}
MODERN: dict[str, Any] = {**NANOCHAT, "logit_softcap": 5.0}
"""NanoChat with a soft cap that is low enough to change the logits of a small model."""
ALONE: list[dict[str, Any]] = [
    {"norm": "rmsnorm"},
    {"embedding_norm": True},
    {"qk_norm": True},
    {"activation": "relu2"},
    {"bias": False},
    {"gates": False},
    {"logit_softcap": 5.0},
]
"""Each option of the architecture by itself."""
GATED: dict[str, Any] = {name: value for name, value in MODERN.items() if name != "gates"}
"""The same with gates."""


def small_config(**options: Any) -> ModelConfig:
    """Return the configuration of a small model without dropout."""
    return ModelConfig.model_validate({"dropout": 0.0, **SMALL, **options})
