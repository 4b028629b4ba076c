"""Tiny models with vocabularies of their own, and ways to make loading GPT-2's files fail."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest
import torch

from common.data import Vocabulary, gpt2_files, gpt2_vocabulary
from common.data.stories import story
from common.data.vocabulary_training import train_vocabulary
from common.model import ModelConfig, TransformerLM


@lru_cache
def own_vocabulary(size: int = 400, *, first_story: int = 0) -> Vocabulary:
    """Return a vocabulary that was trained on 20 stories; other stories give other merges."""
    return train_vocabulary([story(first_story + index) for index in range(20)], size)


def own_model(vocabulary: Vocabulary, *, seed: int = 0, context_length: int = 64, scale: float = 20.0) -> TransformerLM:
    """Return a seeded model with this vocabulary that hardly ever generates end-of-text.

    `scale` multiplies the weights that give the logits.
    """
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=vocabulary.size, d_model=24, num_layers=1, num_heads=2, ffn_dim=32, context_length=context_length
    )
    model = TransformerLM(config)
    model.vocabulary = vocabulary
    with torch.no_grad():
        model.output_projection.weight.mul_(scale)
        model.output_projection.bias[vocabulary.end_of_text_id] = -100.0
    return model.eval()


def forbid_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every use of GPT-2's files in this process fail, even if they were read before."""

    def refuse() -> tuple[Path, Path]:
        raise AssertionError("GPT-2's vocabulary is loaded for a model that has its own")

    gpt2_files.load_gpt2_encoding.cache_clear()
    for name in ("encoding", "merges", "byte_lengths"):
        gpt2_vocabulary().__dict__.pop(name, None)
    monkeypatch.setattr(gpt2_files, "vocabulary_files", refuse)
    with pytest.raises(AssertionError):
        _ = gpt2_vocabulary().encoding


def package_without_gpt2(folder: Path) -> Path:
    """Create an empty package in place of the one with GPT-2's files, and return the folder for PYTHONPATH."""
    package = folder / "without-gpt2" / gpt2_files.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    return package.parent


def model_with_gpt2(vocab_size: int = 61) -> TransformerLM:
    """Return a tiny model without a vocabulary of its own, which means GPT-2's; it has only `vocab_size` entries."""
    config = ModelConfig(vocab_size=vocab_size, d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=8)
    return TransformerLM(config)
