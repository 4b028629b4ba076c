"""Batches for tests of an engine, and the completions that they generate with many kinds of settings."""

from __future__ import annotations

import random
from collections.abc import Sequence

import tiktoken

from common.generation import Continuation, DecodingModel, FinishReason, GenerationSettings
from common.generation.cuda.batch import StaticBatch
from common.generation.cuda.engine import BatchEngine
from tests.unit.common.generation.conftest import VOCABULARY, reacting_policy

ACTOR, OTHER = reacting_policy(), reacting_policy()

KINDS = [
    GenerationSettings(max_tokens=20),
    GenerationSettings(max_tokens=7, top_k=None, temperature=1.4),
    GenerationSettings(max_tokens=30, top_k=None, top_p=0.6),
    GenerationSettings(max_tokens=12, top_k=3, repetition_penalty=1.9, top_log_probs=3),
    GenerationSettings(max_tokens=25, gating_mode="fixed", modulation=0.1),
    GenerationSettings(max_tokens=15, gating_mode="random"),
    GenerationSettings(max_tokens=40, gating_mode="learned", policy=ACTOR),
    GenerationSettings(max_tokens=10, gating_mode="learned", policy=OTHER, sample_actions=True),
    GenerationSettings(max_tokens=40, stop=("\x07", "ab")),
    GenerationSettings(max_tokens=30, presence_penalty=1.0, frequency_penalty=0.5, logit_bias=((7, 3.0), (9, -5.0))),
    GenerationSettings(max_tokens=9, top_k=5, score_prompt=True, top_log_probs=2),
    GenerationSettings(max_tokens=0),
]


def generate_texts(
    engine: BatchEngine,
    tokenizer: tiktoken.Encoding,
    seed: int,
    joins: int,
    kinds: Sequence[GenerationSettings] = KINDS,
) -> list[Continuation]:
    """Generate 26 completions that join at random steps before step `joins`; cancel three after a few tokens."""
    rng, model = random.Random(seed), engine.model
    planned = []
    for number in range(26):
        prompt = [rng.randrange(256) for _ in range(rng.randrange(0, 40))]
        continuation = Continuation(
            prompt,
            kinds[number % len(kinds)],
            vocab_size=VOCABULARY,
            gates_trained=model.gates_trained,
            tokenizer=tokenizer,
            seed=number,
        )
        planned.append((continuation, rng.randrange(joins)))
    cancel_after = {number: rng.randrange(1, 8) for number in (3, 9, 16)}

    def cancel_some(continuation: Continuation, _: object) -> None:
        for number, tokens in cancel_after.items():
            if planned[number][0] is continuation and len(continuation.result.token_ids) == tokens:
                continuation.end(FinishReason.CANCELLED)

    ended: list[Continuation] = []
    for step in range(joins):
        engine.join([continuation for continuation, at in planned if at == step])
        ended += engine.step(cancel_some)
    while engine.active:
        ended += engine.step(cancel_some)
    assert sorted(map(id, ended)) == sorted(id(continuation) for continuation, _ in planned)
    return [continuation for continuation, _ in planned]


def batch_of(model: DecodingModel, settings: list[GenerationSettings], *, graphs: bool = True) -> StaticBatch:
    """Return a full batch with one sequence for each element of `settings`, with logit adjustments enabled."""
    batch = StaticBatch(model, slots=len(settings), graphs=graphs)
    batch.allocate_logit_adjustments()
    prompts = [[number + 1, 5, 6] for number in range(len(settings))]
    batch.join(list(range(len(settings))), settings, list(range(len(settings))), prompts, prompts)
    return batch
