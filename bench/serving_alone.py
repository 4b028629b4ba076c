"""The engine without the stack: `python -m bench.serving_alone MODEL THREADS`, a child of `bench.serving`.

Reads lines of JSON: `{"texts": [[prompt, max_tokens, seed], …], "seconds", "warm", "slots"}`; keeps that many texts
going, the next one joining when one ends, and answers with a line of JSON: tokens, seconds, and how long it took from
a text's turn to its first token. Counting begins `warm` seconds after all slots are in use. Exactly what the engine
child does with its batch, without HTTP, Redis, or JSON.
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
"""As the generator of a local stack without a GPU."""
JOIN = 16
"""Texts that join in one turn, as in `services.generator.engine`."""


def write(model: DecodingModel, asked: dict[str, Any]) -> dict[str, Any]:
    """Keep the slots full for the time that was asked."""
    tokenizer, engine, vocab_size = load_tokenizer(), DecodingEngine(model), model.config.vocab_size
    texts = cycle(asked["texts"])
    waits: list[float] = []
    prefills: list[float] = []
    begun: dict[Continuation, float] = {}
    count = 0

    def on_token(choice: Continuation, _: TokenStep) -> None:
        nonlocal count
        count += 1
        since = begun.pop(choice, None)
        if since is not None:
            waits.append(time.perf_counter() - since)

    room: list[float] = [time.perf_counter()] * asked["slots"]
    full = counting = cpu = 0.0
    tokens = 0
    while not counting or time.perf_counter() - counting < asked["seconds"]:
        now = time.perf_counter()
        if not full and not room and not begun:
            full = now
        if full and not counting and now - full >= asked["warm"]:
            counting, cpu, tokens = now, time.process_time(), count
        joining = []
        for free_since in room[:JOIN]:
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
            begun[choice] = free_since
            joining.append(choice)
        del room[:JOIN]
        if joining:
            before = time.perf_counter()
            engine.join(joining)
            prefills.append(time.perf_counter() - before)
        left = engine.sample(on_token)
        engine.advance()
        room += [time.perf_counter()] * len(left)
    return {
        "tokens": count - tokens,
        "seconds": time.perf_counter() - counting,
        "waits": waits,
        "prefills": prefills,
        "cpu": time.process_time() - cpu,
    }


def main() -> None:
    """Serve lines until the input ends."""
    os.nice(NICE)
    torch.set_num_threads(int(sys.argv[2]))
    model = DecodingModel(load_model(Path(sys.argv[1])))
    load_tokenizer()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(write(model, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
