"""Measure the tokens per second of the generation engine, compared with `transformers.generate`.

`transformers.generate` runs a GPT-2 of the same shape as Tidal's default model, with random weights and its KV cache
enabled. Both models sample with top-k 50, repetition penalty 1.2 and temperature 0.8 from prompts of 12 tokens. Both
run in one process with the environment variables of the generator's engine (allocator, OpenMP threads). Measurements of
the two models alternate, and medians are printed. Both models use all cores, or TIDAL_GENERATOR_THREADS threads. Two
more rows compare the engine with itself: gating mode `learned` with `none`, the native backend with PyTorch, and int8
weights with float32. The engine has the backend that TIDAL_GENERATOR_BACKEND names (default: auto). The last rows count
the completions that are the same in a batch of one as in a full batch. For each completion that differs, the first
different step and its log-probabilities are printed. Needs the package transformers (extra `bench`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.gpt2 import gpt2
from bench.report import Row, from_json, main
from common.config import ModelConfig
from common.config.compute_environment import with_compute_environment
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.generation import Continuation, DecodingEngine, DecodingModel, GenerationSettings, generate_batch
from common.model import TransformerLM
from services.generator.engine_host import ENGINE_ENVIRONMENT

PROMPT_TOKENS = 12
SAMPLING = {"temperature": 0.8, "top_k": 50, "repetition_penalty": 1.2}
NEAR_TIE = 1e-4
"""Two tokens count as almost equally likely if their log-probabilities differ by less than this."""


def run(quick: bool) -> list[Row]:
    """Measure all rows, with fewer tokens and rounds when `quick`."""
    if "GOMP_SPINCOUNT" not in os.environ:  # OpenMP and the allocator read their variables only when a program starts
        command = [sys.executable, "-m", "bench.generation", "--json", *(["--quick"] if quick else [])]
        environment = ENGINE_ENVIRONMENT | with_compute_environment(os.environ)
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        return [from_json(row) for row in json.loads(output.stdout)]
    threads = os.environ.get("TIDAL_GENERATOR_THREADS")
    if threads:
        torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    model = default_model()
    backend = os.environ.get("TIDAL_GENERATOR_BACKEND", "auto")
    packed, peer = DecodingModel(model, backend=backend), peer_model()
    new, rounds = (24, 3) if quick else (100, 7)
    rows = []
    for batch, bound in ((1, 2.5), (16, 4.0), (64, 4.0)):
        prompts = make_prompts(batch)
        ours, peer_speed = alternate(
            rounds if batch < 64 else 3,
            partial(generate_tokens, packed, prompts, new),
            partial(peer_generate_tokens, peer, prompts, new),
        )
        rows.append(
            Row(f"generation, batch {batch}", "tokens/s", ours, peer_speed, "transformers generate", bound, "at least")
        )
    prompts = make_prompts(16)
    policy = GatingPolicy().eval()
    learned, plain = alternate(
        rounds,
        lambda: generate_tokens(packed, prompts, new, gating_mode="learned", policy=policy),
        lambda: generate_tokens(packed, prompts, new),
    )
    rows.append(
        Row(
            "generation, gating mode learned, batch 16",
            "tokens/s",
            learned,
            plain,
            "gating mode none",
            0.85,
            "at least",
        )
    )
    small = DecodingModel(model, precision="int8", backend=backend)
    in_torch = DecodingModel(model, backend="torch") if packed.effective_backend == "native" else None
    for batch, bound in ((1, 1.8), (16, 1.0), (64, 1.0)):
        prompts = make_prompts(batch)
        ours, float32 = alternate(
            rounds if batch < 64 else 3,
            partial(generate_tokens, small, prompts, new),
            partial(generate_tokens, packed, prompts, new),
        )
        name = f"generation, int8 weights, batch {batch}"
        rows.append(Row(name, "tokens/s", ours, float32, "float32", bound, "at least"))
        if in_torch is not None:
            native, torch_speed = alternate(
                rounds if batch < 64 else 3,
                partial(generate_tokens, packed, prompts, new),
                partial(generate_tokens, in_torch, prompts, new),
            )
            name = f"generation, native backend, batch {batch}"
            rows.append(Row(name, "tokens/s", native, torch_speed, "PyTorch", 1.0, "at least"))
    requests = 40 if quick else 200
    for name, decoding_model in (("", packed), (", int8", small)):
        equal = count_equal_texts(decoding_model, requests)
        rows.append(
            Row(
                f"completions that are the same in a batch of one as in a full batch{name}",
                "completions",
                equal,
                requests,
                "requested",
                0.995,
                "at least",
            )
        )
    return rows


def default_model() -> TransformerLM:
    """Return a model with random weights, logits that vary like a trained model's, and no end-of-text token."""
    model = TransformerLM(ModelConfig()).eval()
    with torch.no_grad():
        model.output_projection.weight.mul_(10)
        model.output_projection.bias[load_tokenizer().eot_token] = -1e4
    return model


def peer_model() -> Any:
    """Return a GPT-2 with random weights and the shape of the default model."""
    return gpt2(ModelConfig()).eval()


def make_prompts(batch: int) -> list[list[int]]:
    """Return `batch` prompts of random tokens."""
    generator = torch.Generator().manual_seed(batch)
    prompts: list[list[int]] = torch.randint(0, 50_000, (batch, PROMPT_TOKENS), generator=generator).tolist()
    return prompts


def generate_tokens(model: DecodingModel, prompts: list[list[int]], new: int, **settings: Any) -> int:
    """Generate with Tidal's engine and return the number of generated tokens."""
    generation_settings = GenerationSettings(max_tokens=new, **{**SAMPLING, **settings})
    results = generate_batch(model, prompts, generation_settings, seeds=list(range(len(prompts))))
    return sum(len(result.token_ids) for result in results)


def peer_generate_tokens(model: Any, prompts: list[list[int]], new: int) -> int:
    """Generate with transformers and return the number of generated tokens."""
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            max_new_tokens=new,
            min_new_tokens=new,
            pad_token_id=0,
            use_cache=True,
            **SAMPLING,
        )
    return int(out.shape[0] * (out.shape[1] - ids.shape[1]))


def alternate(rounds: int, ours: Callable[[], int], peer: Callable[[], int]) -> tuple[float, float]:
    """Return the median tokens/s of `ours` and `peer`, which run alternately. The first round is not counted."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for write_tokens, found in zip((ours, peer), speeds, strict=True):
            started = time.perf_counter()
            tokens = write_tokens()
            if number:
                found.append(tokens / (time.perf_counter() - started))
    return statistics.median(speeds[0]), statistics.median(speeds[1])


def count_equal_texts(model: DecodingModel, requests: int, *, slots: int = 64, new: int = 20) -> int:
    """Count the completions that are the same in a batch of one as in a full batch.

    In the full batch, other sequences start and end during each completion.
    """
    tokenizer = load_tokenizer()
    settings = [GenerationSettings(max_tokens=new - number % 7, **SAMPLING) for number in range(requests)]
    prompts = make_prompts(requests)
    waiting = [
        Continuation(prompt, setting, vocab_size=50_257, gates_trained=False, tokenizer=tokenizer, seed=number)
        for number, (prompt, setting) in enumerate(zip(prompts, settings, strict=True))
    ]
    everything, engine = list(waiting), DecodingEngine(model)
    while waiting or engine.active:
        free = min(slots - len(engine.active), 16)
        engine.join(waiting[:free])
        del waiting[:free]
        engine.step()
    equal = 0
    for number, found in enumerate(everything):
        alone = generate_batch(model, [prompts[number]], settings[number], seeds=[number])[0]
        if alone.token_ids == found.result.token_ids:
            equal += 1
            continue
        pairs = zip(alone.trajectory, found.result.trajectory, strict=True)
        step, (one, other) = next((at, pair) for at, pair in enumerate(pairs) if pair[0].token_id != pair[1].token_id)
        gap = abs(one.log_prob - other.log_prob)
        print(
            f"completion {number} differs from step {step} on: "
            f"log-probabilities {one.log_prob:.6f} and {other.log_prob:.6f}"
            f"{', almost equally likely' if gap < NEAR_TIE else ''}",
            file=sys.stderr,
        )
    return equal


if __name__ == "__main__":
    main(run, __doc__)
