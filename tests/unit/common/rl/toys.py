"""A tiny model, corpus and configuration for tests of controller training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config import RLConfig, build
from common.data import Corpus, CorpusPart, gpt2_vocabulary, text_bytes
from common.data.token_cache import Split
from common.model import ModelConfig, TransformerLM

VOCAB = 97
END = 96
SHAPE = ModelConfig(vocab_size=VOCAB, d_model=48, num_layers=2, num_heads=2, ffn_dim=64, context_length=32, dropout=0.2)


def toy_model(
    seed: int = 0, *, gates_trained: bool = False, sharpness: float = 12.0, **architecture: Any
) -> TransformerLM:
    """Return a seeded model whose logits are far from uniform, so that decoding parameters have an effect."""
    torch.manual_seed(seed)
    model = TransformerLM(ModelConfig.model_validate({**SHAPE.model_dump(), **architecture})).eval()
    with torch.no_grad():
        model.output_projection.weight.mul_(sharpness)
        for gate in model.gates:
            gate.net[-1].get_parameter("weight").normal_(std=0.5)
    model.gates_trained = gates_trained
    return model


def toy_config(**overrides: Any) -> RLConfig:
    """Return a configuration small enough for a test, changed by nested overrides as in `common.config.build`."""
    values: dict[str, Any] = {
        "ppo": {"total_steps": 96, "num_envs": 3, "rollout_steps": 8, "epochs": 2, "minibatch_size": 8},
        "episode": {"max_length": 6, "prompt_min_tokens": 2, "prompt_max_tokens": 5, "statistics_documents": 40},
        "ablation": {"prompts": 7, "development_prompts": 2, "bootstrap_resamples": 200},
        "modulation": {"top_k": {"low": 2, "high": 30}},
        "checkpoint_every_iterations": 2,
        "device": "cpu",
        "threads": 1,
    }
    return build(RLConfig, values, overrides)


def toy_corpus(seed: int = 0, documents: int = 200) -> Corpus:
    """Return a corpus of random documents: 8 to 20 tokens below END, followed by END."""
    random = np.random.default_rng(seed)

    def split() -> Split:
        texts = [[*random.integers(0, END, size=random.integers(8, 20)).tolist(), END] for _ in range(documents)]
        starts = np.cumsum([0, *[len(text) for text in texts]])[:-1]
        tokens = np.array([token for text in texts for token in text], dtype=np.uint16)
        return Split(tokens, starts.astype(np.int64), text_bytes(tokens, gpt2_vocabulary()))

    part = CorpusPart("toys", 1.0, split(), split(), Path())
    return Corpus((part,), description="toy documents", digest=f"toy-{seed}", vocabulary=gpt2_vocabulary())
