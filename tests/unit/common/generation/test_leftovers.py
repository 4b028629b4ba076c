"""Values of ended sequences do not reach later sequences of the same batch, and their memory is freed."""

from __future__ import annotations

import gc
import weakref

import pytest
import tiktoken
import torch

from common.controller import GatingPolicy
from common.errors import CheckpointError
from common.generation import Continuation, DecodingEngine, DecodingModel, GenerationSettings, generate_batch
from common.generation.cuda.engine import BatchEngine, DeviceEngine
from tests.unit.common.generation.conftest import VOCABULARY, tiny_model

torch.set_num_threads(1)


def continuation(tokenizer: tiktoken.Encoding, prompt: list[int], settings: GenerationSettings) -> Continuation:
    return Continuation(
        prompt, settings, vocab_size=VOCABULARY, gates_trained=False, tokenizer=tokenizer, seed=len(prompt)
    )


def finish(engine: BatchEngine) -> None:
    while engine.active:
        engine.step()


@pytest.mark.parametrize("engine_class", [DecodingEngine, DeviceEngine])
@pytest.mark.parametrize("damaged_token", [7, 0])
def test_what_is_not_finite_reaches_no_later_text_in_the_same_place(
    tokenizer: tiktoken.Encoding, engine_class: type[DecodingEngine] | type[DeviceEngine], damaged_token: int
) -> None:
    """One token has a damaged embedding. Sequences without it run before, with and after sequences that contain it."""
    damaged = tiny_model(context_length=64)
    with torch.no_grad():
        damaged.token_embeddings.weight[damaged_token] = float("nan")
        damaged.output_projection.bias[damaged_token] = -1e4  # the damaged token must never be sampled
    model, settings = DecodingModel(damaged), GenerationSettings(max_tokens=12)
    engine = engine_class(model)
    rounds = [[[1] * 40, [2] * 30, [3, *[damaged_token] * 35], [4]], [[5, 6], [5], [9] * 20, [8], [3]]]
    for prompts in rounds:
        texts = [continuation(tokenizer, prompt, settings) for prompt in prompts]
        engine.join(texts)
        finish(engine)
        for text in texts:
            if damaged_token in text.result.prompt_token_ids:
                assert isinstance(text.error, CheckpointError)
                continue
            assert text.error is None
            alone = continuation(tokenizer, text.result.prompt_token_ids, settings)
            fresh = DecodingEngine(DecodingModel(damaged))
            fresh.join([alone])
            finish(fresh)
            assert text.result.token_ids == alone.result.token_ids


def test_a_model_does_not_keep_a_cache_alive() -> None:
    model = DecodingModel(tiny_model())
    cache = model.new_cache()
    model.prefill(torch.tensor([[1, 2]]), [2], cache, 0)
    model.decode(torch.tensor([3]), cache, None)
    keys = weakref.ref(cache.keys)
    del cache
    gc.collect()
    assert keys() is None


def test_policies_are_freed_with_their_texts_and_others_keep_theirs(tokenizer: tiktoken.Encoding) -> None:
    def policy(seed: int) -> GatingPolicy:
        torch.manual_seed(seed)
        actor = GatingPolicy().eval()
        torch.nn.init.normal_(actor.get_parameter("actor_head.2.weight"), std=1.5)
        return actor

    def learned(actor: GatingPolicy, tokens: int) -> GenerationSettings:
        return GenerationSettings(max_tokens=tokens, gating_mode="learned", policy=actor)

    model, second, third = DecodingModel(tiny_model()), policy(2), policy(3)
    engine = DeviceEngine(model)

    def a_policy_for_two_tokens() -> weakref.ref[GatingPolicy]:
        first = policy(1)
        engine.join([continuation(tokenizer, [1], learned(first, 2))])
        return weakref.ref(first)

    first_policy = a_policy_for_two_tokens()
    stays = continuation(tokenizer, [2], learned(second, 30))
    engine.join([stays])
    for _ in range(4):
        engine.step()
    gc.collect()
    assert first_policy() is None
    joins_later = continuation(tokenizer, [3], learned(third, 20))
    engine.join([joins_later])
    finish(engine)
    for text in (stays, joins_later):
        [alone] = generate_batch(
            model, [text.result.prompt_token_ids], text.settings, seeds=[text.seed], tokenizer=tokenizer
        )
        assert text.result.token_ids == alone.token_ids
        assert [step.modulation for step in text.result.trajectory] == [
            pytest.approx(step.modulation, abs=1e-4) for step in alone.trajectory
        ]


def test_an_empty_batch_gives_the_room_of_a_long_prompt_back(tokenizer: tiktoken.Encoding) -> None:
    engine, settings = DeviceEngine(DecodingModel(tiny_model())), GenerationSettings(max_tokens=3)
    before = engine.nbytes
    engine.join([continuation(tokenizer, [1] * 20_000, settings)])
    finish(engine)
    assert engine.nbytes > 4 * before
    text = continuation(tokenizer, [1, 2], settings)
    engine.join([text])
    assert engine.nbytes == before
    finish(engine)
    assert len(text.result.token_ids) == 3
