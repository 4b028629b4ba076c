"""Batches of the device's engine, and the texts they write."""

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


def write(
    engine: BatchEngine,
    tokenizer: tiktoken.Encoding,
    seed: int,
    joins: int,
    kinds: Sequence[GenerationSettings] = KINDS,
) -> list[Continuation]:
    """Texts of every kind that join at chosen steps; some are cancelled by what they have written."""
    chance, model = random.Random(seed), engine.model
    wanted = []
    for number in range(26):
        prompt = [chance.randrange(256) for _ in range(chance.randrange(0, 40))]
        its = Continuation(
            prompt,
            kinds[number % len(kinds)],
            vocab_size=VOCABULARY,
            gates_trained=model.gates_trained,
            tokenizer=tokenizer,
            seed=number,
        )
        wanted.append((its, chance.randrange(joins)))
    doomed = {number: chance.randrange(1, 8) for number in (3, 9, 16)}

    def listen(its: Continuation, _: object) -> None:
        for number, tokens in doomed.items():
            if wanted[number][0] is its and len(its.result.token_ids) == tokens:
                its.end(FinishReason.CANCELLED)

    left: list[Continuation] = []
    for step in range(joins):
        engine.join([its for its, at in wanted if at == step])
        left += engine.step(listen)
    while engine.active:
        left += engine.step(listen)
    assert sorted(map(id, left)) == sorted(id(its) for its, _ in wanted)
    return [its for its, _ in wanted]


def batch_of(model: DecodingModel, settings: list[GenerationSettings], *, graphs: bool = True) -> StaticBatch:
    batch = StaticBatch(model, slots=len(settings), graphs=graphs)
    batch.want_offsets()
    prompts = [[number + 1, 5, 6] for number in range(len(settings))]
    batch.join(list(range(len(settings))), settings, list(range(len(settings))), prompts, prompts)
    return batch
