"""Writes a checkpoint for tests of generation: a tiny model that hardly ever emits the end-of-text token."""

from __future__ import annotations

from pathlib import Path

import torch

from common.checkpoint import save_model
from common.data import load_tokenizer
from common.model import ModelConfig, TransformerLM

MODEL = "20260101-000000-demo/model.safetensors"
"""The reference by which requests name this checkpoint."""


def save_tiny_model(experiments: Path) -> None:
    """Write the checkpoint into `experiments`, the folder of all experiments."""
    model = TransformerLM(ModelConfig(d_model=24, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    with torch.no_grad():
        model.output_projection.bias[load_tokenizer().eot_token] = -30.0
    path = experiments / MODEL
    path.parent.mkdir(parents=True)
    save_model(model, path)
