"""Helpers: copy a model to a device, and generate completions with several settings in one batch."""

from __future__ import annotations

import copy

import tiktoken
import torch

from common.generation import Continuation, DecodingEngine, DecodingModel, DeviceEngine, GenerationSettings
from common.model import TransformerLM

SETTINGS = [
    GenerationSettings(max_tokens=30),
    GenerationSettings(max_tokens=30, top_k=None),
    GenerationSettings(max_tokens=30, top_k=None, top_p=0.7),
    GenerationSettings(max_tokens=30, gating_mode="random"),
    GenerationSettings(max_tokens=30, gating_mode="fixed", modulation=0.2),
    GenerationSettings(max_tokens=30, presence_penalty=0.7, logit_bias=((4, 2.0),)),
]


def on(device: torch.device, model: TransformerLM, precision: str = "float32") -> DecodingModel:
    """Return a copy of `model` for decoding on `device`."""
    return DecodingModel(copy.deepcopy(model).to(device), precision=precision)


def texts(
    engine: DecodingEngine | DeviceEngine, tokenizer: tiktoken.Encoding, settings: list[GenerationSettings]
) -> list[Continuation]:
    """Generate one completion for each element of `settings`, all in one batch. Return them in this order."""
    model = engine.model
    continuations = [
        Continuation(
            [number + 1, 2, 3],
            setting,
            vocab_size=model.config.vocab_size,
            gates_trained=model.gates_trained,
            tokenizer=tokenizer,
            seed=number,
        )
        for number, setting in enumerate(settings)
    ]
    engine.join(continuations)
    while engine.active:
        engine.step()
    return continuations
