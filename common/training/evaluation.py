"""Computes validation loss, perplexity and sample texts of a language model, during training and at its end.

Validation reads the held-out tokens from the first to the last, in non-overlapping chunks of the context length, and
uses no randomness: two validations of the same weights give the same loss. The comparison of controllers is in
`common.rl.ablation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.config.lm import EvaluationConfig
from common.data import ChunkLoader
from common.errors import require_finite
from common.files import write_atomic, write_json
from common.generation import DecodingModel, generate
from common.metrics import names
from common.model import TransformerLM
from common.model.transfer import to_device
from common.training.device import ComputeConfig
from common.training.loss import summed_loss
from tidal_client.vocabulary import GatingMode

RESULTS_FILE = "evaluation_results/evaluation_results.json"
SAMPLE_SEED = 1234


def validation_loss(
    model: TransformerLM,
    tokens: NDArray[np.uint16],
    config: EvaluationConfig,
    compute: ComputeConfig,
    *,
    keep_going: Callable[[], bool] = lambda: True,
) -> float | None:
    """Return the mean of −ln p(token) in nats, without modulation, or None if `keep_going` returned False.

    Reads at most `config.max_batches` batches from the beginning of `tokens` and calls `keep_going` before each. Raises
    DataError for fewer than two tokens, DivergedError if the loss is not finite.
    """
    loader = ChunkLoader(
        tokens, context_length=model.config.context_length, batch_size=config.batch_size, shuffle=False
    )
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=compute.device)
    positions = 0
    try:
        with torch.no_grad(), compute.autocast():
            for input_ids, targets in islice(loader.batches(), config.max_batches):
                if not keep_going():
                    return None
                loss = summed_loss(model, to_device(input_ids, compute.device), to_device(targets, compute.device))
                total += loss.double()
                positions += targets.numel()
    finally:
        model.train(was_training)
    return require_finite("the validation loss", float(total) / positions)


def perplexity(loss: float) -> float | None:
    """Return exp(loss), or None if that is too large for a float."""
    return math.exp(loss) if loss < 700.0 else None


def validation_values(loss: float) -> dict[str, float]:
    """Return the metrics of a validation: the loss, and the perplexity unless it is too large for a float."""
    ppl = perplexity(loss)
    return {names.VALIDATION_LOSS: loss} | ({} if ppl is None else {names.PERPLEXITY: ppl})


def generate_samples(model: TransformerLM, config: EvaluationConfig) -> list[dict[str, Any]]:
    """Generate a continuation of each configured prompt without gating, with the same seeds at every call.

    Each entry has the keys "prompt", "generated" (the continuation as text) and "tokens" (the number of generated
    tokens).
    """
    packed = DecodingModel(model)
    return [_sample(packed, prompt, number, config) for number, prompt in enumerate(config.prompts)]


def _sample(model: DecodingModel, prompt: str, number: int, config: EvaluationConfig) -> dict[str, Any]:
    generation = generate(
        model,
        prompt,
        max_tokens=config.sample_tokens,
        gating_mode=GatingMode.NONE,
        temperature=config.temperature,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        seed=SAMPLE_SEED + number,
    )
    return {"prompt": prompt, "generated": generation.text, "tokens": len(generation.token_ids)}


def write_results(directory: Path, results: dict[str, Any]) -> Path:
    """Write `evaluation_results/evaluation_results.json` in the experiment's folder atomically and return its path."""
    path = directory / RESULTS_FILE
    write_atomic(path, lambda temporary: write_json(temporary, results))
    return path
