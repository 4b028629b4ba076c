"""The peer: the GPT-2 of transformers, trained by a plain loop with AdamW, warm-up, cosine and clipping."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from bench.gpt2 import gpt2
from bench.recipes.measures import Curve, evaluate, measure
from common.config import LMConfig
from common.data import ChunkLoader, Corpus


def train_peer(config: LMConfig, corpus: Corpus) -> dict[str, Any]:
    """Train, and return the result of the run. The vocabulary head shares its weights with the embedding, as in GPT-2.

    Uses shape, batch, steps and the optimiser's settings of `config`, which must limit the steps.
    """
    training, context = config.training, config.model.context_length
    assert training.max_steps is not None, "the peer is limited by tokens"
    torch.set_num_threads(training.threads or torch.get_num_threads())
    torch.manual_seed(training.seed)
    model = gpt2(config.model, tied_head=True)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=True,
    )
    loader = ChunkLoader(
        corpus.train[0 : len(corpus.train)],
        context_length=context,
        batch_size=training.micro_batch_size,
        seed=training.seed,
    )

    def logits(input_ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = model(input_ids, use_cache=False).logits
        return found

    curve, tokens, evaluating = Curve(), 0, 0.0
    best, best_weights = math.inf, copy.deepcopy(model.state_dict())
    warmup = max(1, round(training.warmup_ratio * training.max_steps))
    every = config.evaluation.every_steps or training.max_steps
    model.train()
    start = time.monotonic()
    for step in range(training.max_steps):
        done = max(0.0, (step - warmup) / max(1, training.max_steps - warmup))
        rate = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        sequences = 0
        while sequences < training.effective_batch_size:
            input_ids, targets = loader.next_batch()
            loss = functional.cross_entropy(logits(input_ids).flatten(0, 1), targets.flatten(), reduction="sum")
            torch.autograd.backward(loss)
            sequences += len(input_ids)
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad /= sequences * loader.length
        norm = clip_grad_norm_(parameters, training.max_grad_norm)
        if not bool(norm.isfinite()):
            return {"diverged": True}
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += sequences * loader.length
        if (step + 1) % every == 0 or step + 1 == training.max_steps:
            began = time.monotonic()
            value, bits = evaluate(model, logits, corpus, context, config.evaluation.max_batches)
            curve.add(tokens, began - start - evaluating, value, bits)
            if bits < best:
                best, best_weights = bits, copy.deepcopy(model.state_dict())
            evaluating += time.monotonic() - began
    seconds = time.monotonic() - start - evaluating
    final = measure(model, logits, corpus, context)
    model.load_state_dict(best_weights)
    chosen = measure(model, logits, corpus, context)
    return {
        "curve": curve.points,
        "final": final,
        "best": min(final, chosen, key=lambda values: values["tuning_bits_per_byte"]),
        "tokens": tokens,
        "steps": training.max_steps,
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "bytes_per_second": tokens / seconds * corpus.train_bytes_per_token,
    }
