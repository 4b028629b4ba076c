"""Measure how much int8 weights change the validation loss of a trained model of the default size.

The benchmark trains the default model on the built-in stories, or on the text file that the environment variable DATA
names. Training takes TRAIN_SECONDS seconds (environment variable; default 600, or 60 with --quick). Then the decoding
code reads held-out text token by token, once with float32 and once with int8 weights, both with the backend that
TIDAL_GENERATOR_BACKEND names (default: auto). Steps and training loss are
printed to standard error.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from bench.report import Row, main
from common.config import ModelConfig
from common.config.data import DataConfig
from common.data import ChunkLoader
from common.generation import DecodingModel
from common.model import TransformerLM
from common.training.hooks import NullHooks
from common.training.loading import load_corpus
from common.training.loss import summed_loss

BOUND = 0.01
"""The largest allowed change of the validation loss, in nats per token."""
BATCH = 8
LEARNING_RATE = 1e-3
WARM_UP_STEPS = 20
TEXTS = 16
"""Number of held-out sequences per batch, each as long as the context window."""


def run(quick: bool) -> list[Row]:
    """Train, then compare the losses on eight batches. When `quick`, train for a minute and use one batch."""
    seconds = float(os.environ.get("TRAIN_SECONDS", "60" if quick else "600"))
    torch.manual_seed(0)
    source = os.environ.get("DATA")
    config = DataConfig(source=str(Path(source).resolve()) if source else "builtin:stories")
    with tempfile.TemporaryDirectory() as folder:
        corpus = load_corpus(config, Path(folder), NullHooks())
        model = TransformerLM(ModelConfig())
        train(
            model,
            ChunkLoader(corpus.train[0 : len(corpus.train)], context_length=256, batch_size=BATCH, seed=0),
            seconds,
        )
        held_out = ChunkLoader(
            corpus.validation[0 : len(corpus.validation)], context_length=256, batch_size=TEXTS, shuffle=False
        )
        batches = [batch for batch, _ in zip(held_out.batches(), range(1 if quick else 8), strict=False)]
    model.eval()
    backend = os.environ.get("TIDAL_GENERATOR_BACKEND", "auto")
    exact = mean_loss(DecodingModel(model, backend=backend), batches)
    small = mean_loss(DecodingModel(model, precision="int8", backend=backend), batches)
    tokens = sum(targets.numel() for _, targets in batches)
    print(f"held-out loss over {tokens} tokens: float32 {exact:.5f}, int8 {small:.5f} nats", file=sys.stderr)
    return [
        Row(
            "change of the validation loss with int8 weights",
            "nats",
            abs(small - exact),
            BOUND,
            "largest allowed change",
            1.0,
            "at most",
        )
    ]


def train(model: TransformerLM, loader: ChunkLoader, seconds: float) -> None:
    """Train for `seconds` with AdamW and a short learning-rate warm-up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    ends, step, value = time.monotonic() + seconds, 0, float("nan")
    while time.monotonic() < ends:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS)
        input_ids, targets = loader.next_batch()
        loss = summed_loss(model, input_ids, targets) / targets.numel()
        torch.autograd.backward(loss)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value, step = loss.item(), step + 1
        print(f"\rstep {step}, training loss {value:.3f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


@torch.inference_mode()
def mean_loss(model: DecodingModel, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the mean of −ln p(token) in nats. The model reads one token per call, as during generation."""
    total, count = 0.0, 0
    for input_ids, targets in batches:
        cache = model.new_cache(len(input_ids))
        logits, _ = model.prefill(input_ids[:, :1], [1] * len(input_ids), cache, 0)
        for position in range(input_ids.shape[1]):
            if position:
                logits, _ = model.decode(input_ids[:, position], cache, None)
            total += cross_entropy(logits, targets[:, position], reduction="sum").item()
        count += targets.numel()
    return total / count


if __name__ == "__main__":
    main(run, __doc__)
