"""Fixtures with small models and with files of the original project."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.model import ModelConfig, TransformerLM
from tests.paths import PARITY

torch.set_num_threads(1)


@pytest.fixture
def parity() -> Path:
    return PARITY


@pytest.fixture
def model() -> TransformerLM:
    torch.manual_seed(1)
    config = ModelConfig(
        vocab_size=61, d_model=24, num_layers=2, num_heads=3, ffn_dim=40, context_length=20, dropout=0.25, name="mini"
    )
    return TransformerLM(config).eval()
