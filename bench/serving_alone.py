"""Run the engine without the other services: `python -m bench.serving_alone MODEL THREADS`, started by `bench.serving`.

The program reads lines of JSON with the keys `texts` (a list of [prompt, max_tokens, seed]), `seconds`, `warm` and
`slots`. For each line it generates the texts in `slots` slots and starts the next text as soon as a slot is free.
Counting starts `warm` seconds after all slots are in use and ends `seconds` later. The program then writes a line of
JSON with the number of tokens, the measured seconds, the prefill times, and the times from a free slot to the first
token. The engine is called as in the generator, but without HTTP, Redis, or JSON for each token.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from common.checkpoint import load_model
from common.data import load_tokenizer
from common.generation import Continuation, DecodingEngine, DecodingModel, GenerationSettings, TokenStep

NICE = 10
"""Nice value of the generator in a local stack without a GPU."""
JOIN = 16
"""Largest number of sequences that join the batch in one step, as in `services.generator.engine`."""


def generate(model: DecodingModel, request: dict[str, Any]) -> dict[str, Any]:
    """Generate in all slots for the requested time and return the measured figures."""
    tokenizer, engine, vocab_size = load_tokenizer(), DecodingEngine(model), model.config.vocab_size
    texts = cycle(request["texts"])
    waits: list[float] = []
    prefills: list[float] = []
    slot_free_at: dict[Continuation, float] = {}
    count = 0

    def on_token(choice: Continuation, _: TokenStep) -> None:
        nonlocal count
        count += 1
        since = slot_free_at.pop(choice, None)
        if since is not None:
            waits.append(time.perf_counter() - since)

    free_since: list[float] = [time.perf_counter()] * request["slots"]
    full_since = counting_since = cpu = 0.0
    tokens = 0
    while not counting_since or time.perf_counter() - counting_since < request["seconds"]:
        now = time.perf_counter()
        if not full_since and not free_since and not slot_free_at:
            full_since = now
        if full_since and not counting_since and now - full_since >= request["warm"]:
            counting_since, cpu, tokens = now, time.process_time(), count
        joining = []
        for free_at in free_since[:JOIN]:
            prompt, max_tokens, seed = next(texts)
            settings = GenerationSettings(max_tokens=max_tokens, temperature=0.8, top_k=50, repetition_penalty=1.2)
            choice = Continuation(
                prompt,
                settings,
                vocab_size=vocab_size,
                gates_trained=False,
                tokenizer=tokenizer,
                seed=seed,
            )
            slot_free_at[choice] = free_at
            joining.append(choice)
        del free_since[:JOIN]
        if joining:
            before = time.perf_counter()
            engine.join(joining)
            prefills.append(time.perf_counter() - before)
        removed = engine.sample(on_token)
        engine.advance()
        free_since += [time.perf_counter()] * len(removed)
    return {
        "tokens": count - tokens,
        "seconds": time.perf_counter() - counting_since,
        "waits": waits,
        "prefills": prefills,
        "cpu": time.process_time() - cpu,
    }


def main() -> None:
    """Write a reply for each line of standard input, until the input ends."""
    os.nice(NICE)
    torch.set_num_threads(int(sys.argv[2]))
    model = DecodingModel(load_model(Path(sys.argv[1])))
    load_tokenizer()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(generate(model, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
