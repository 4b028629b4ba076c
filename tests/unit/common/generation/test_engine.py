"""Continuous batching: each completion equals the one generated alone, whatever joins and leaves the batch."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiktoken
import torch

from common.controller import TokenHistory
from common.errors import CheckpointError
from common.generation import (
    Continuation,
    DecodingEngine,
    DecodingModel,
    FinishReason,
    GenerationSettings,
    TokenStep,
    generate,
    generate_batch,
)
from common.generation.text import EncodedPrompt
from tests.unit.common.generation.conftest import VOCABULARY, reacting_policy, tiny_model

torch.set_num_threads(1)

ACTOR = reacting_policy()
KINDS = [
    GenerationSettings(max_tokens=20),
    GenerationSettings(max_tokens=7, top_k=None, temperature=1.4),
    GenerationSettings(max_tokens=30, top_k=None, top_p=0.6),
    GenerationSettings(max_tokens=12, top_k=3, repetition_penalty=1.9),
    GenerationSettings(max_tokens=25, gating_mode="fixed", modulation=0.8),
    GenerationSettings(max_tokens=15, gating_mode="random"),
    GenerationSettings(max_tokens=28, gating_mode="learned", policy=ACTOR),
    GenerationSettings(max_tokens=10, gating_mode="learned", policy=ACTOR, sample_actions=True),
    GenerationSettings(max_tokens=40, stop=("\x07", "ab")),
    GenerationSettings(
        max_tokens=30, presence_penalty=1.5, frequency_penalty=0.5, logit_bias=((97, 4.0), (98, -100.0))
    ),
    GenerationSettings(max_tokens=22, gating_mode="fixed", frequency_penalty=-1.0, score_prompt=True, top_log_probs=2),
]


def continuation(
    model: DecodingModel, tokenizer: tiktoken.Encoding, prompt: list[int], settings: GenerationSettings, seed: int
) -> Continuation:
    return Continuation(
        prompt,
        settings,
        vocab_size=VOCABULARY,
        gates_trained=model.gates_trained,
        tokenizer=tokenizer,
        seed=seed,
    )


@pytest.mark.parametrize("gates_trained", [False, True])
@pytest.mark.parametrize(("seed", "precision"), [(1, "float32"), (2, "float32"), (1, "int8")])
def test_a_text_is_the_same_alone_and_among_others_that_join_and_leave(
    tokenizer: tiktoken.Encoding, gates_trained: bool, seed: int, precision: str
) -> None:
    """Sequences with different settings join at random steps. Their context windows slide; some are cancelled."""
    rng = random.Random(seed)
    # With int8, no sequence has a policy: its action depends on the batch in the seventh decimal place, and int8 may
    # amplify this difference.
    kinds = [sequence for sequence in KINDS if precision == "float32" or sequence.policy is None]
    model = DecodingModel(tiny_model(gates_trained=gates_trained), precision=precision)
    sequences = [
        (continuation(model, tokenizer, prompt, kinds[number % len(kinds)], number), rng.randrange(30))
        for number in range(22)
        for prompt in [[rng.randrange(256) for _ in range(rng.randrange(0, 40))]]
    ]
    cancel_after = {number: rng.randrange(1, 8) for number in (3, 9, 10)}
    engine, time, removed = DecodingEngine(model), 0, []
    while time < 30 or engine.active:
        engine.join([sequence for sequence, joins in sequences if joins == time])
        for number, tokens in cancel_after.items():
            if len(sequences[number][0].result.token_ids) == tokens:
                sequences[number][0].end(FinishReason.CANCELLED)
        removed += engine.step()
        time += 1
    assert sorted(map(id, removed)) == sorted(id(sequence) for sequence, _ in sequences)
    for number, (sequence, _) in enumerate(sequences):
        alone = generate_batch(
            model, [sequence.result.prompt_token_ids], sequence.settings, seeds=[sequence.seed], tokenizer=tokenizer
        )[0]
        if number in cancel_after and sequence.result.finish_reason is FinishReason.CANCELLED:
            assert sequence.result.token_ids == alone.token_ids[: len(sequence.result.token_ids)]
            continue
        assert sequence.result.token_ids == alone.token_ids
        assert sequence.result.text == alone.text
        assert (sequence.result.finish_reason, sequence.result.truncated) == (alone.finish_reason, alone.truncated)
        for step, other in zip(sequence.result.trajectory, alone.trajectory, strict=True):
            assert step.log_prob == pytest.approx(other.log_prob, abs=1e-3)
            assert step.modulation == pytest.approx(other.modulation, abs=1e-4)


def test_continuations_of_one_prompt_are_prefilled_once_and_equal_those_alone(
    tokenizer: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences with different seeds and settings, and some with equal prompts, join a running batch."""
    model = DecodingModel(tiny_model(context_length=32))
    prompts = [[1, 2, 3], *[[7, 8, 9, 10]] * 5, [7, 8], *[[7, 8, 9, 10]] * 3, [1, 2, 3], list(range(50))]
    sequences = [
        continuation(model, tokenizer, prompt, KINDS[number % 2], number) for number, prompt in enumerate(prompts)
    ]
    prefilled: list[int] = []
    prefill_states = model.prefill_states

    def counted(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        prefilled.append(len(ids))
        return prefill_states(ids, *rest)

    engine = DecodingEngine(model)
    engine.join([continuation(model, tokenizer, [4], KINDS[0], 0)])
    engine.step()
    monkeypatch.setattr(model, "prefill_states", counted)
    engine.join(sequences)
    assert sum(prefilled) == 4
    while engine.active:
        engine.step()
    for sequence in sequences:
        [alone] = generate_batch(
            model, [sequence.result.prompt_token_ids], sequence.settings, seeds=[sequence.seed], tokenizer=tokenizer
        )
        assert sequence.result.token_ids == alone.token_ids
        assert sequence.result.truncated == alone.truncated


def test_choices_that_share_token_ids_are_counted_once_and_equal_those_alone(
    tokenizer: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DecodingModel(tiny_model(gates_trained=True))
    shared = EncodedPrompt([7, 8, 9, 7, 8, 9, 7, 8])
    sequences = [
        Continuation(shared, settings, vocab_size=VOCABULARY, gates_trained=True, tokenizer=tokenizer, seed=number)
        for number, settings in enumerate([KINDS[6]] * 3 + [KINDS[0]] * 3)
    ]
    counted: list[int] = []
    set_sequence = TokenHistory.set_sequence

    def counting_set_sequence(history: TokenHistory, row: int, tokens: list[int], **options: bool) -> None:
        counted.append(row)
        set_sequence(history, row, tokens, **options)

    monkeypatch.setattr(TokenHistory, "set_sequence", counting_set_sequence)
    engine = DecodingEngine(model)
    engine.join(sequences)
    assert counted == [0, 3]
    while engine.active:
        engine.step()
    for sequence in sequences:
        [alone] = generate_batch(model, [shared.ids], sequence.settings, seeds=[sequence.seed], tokenizer=tokenizer)
        assert sequence.result.token_ids == alone.token_ids
        assert [step.modulation for step in sequence.result.trajectory] == [
            pytest.approx(step.modulation, abs=1e-4) for step in alone.trajectory
        ]


def test_a_packed_model_gives_the_logits_of_the_model_with_and_without_gates(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(gates_trained=True)
    packed = DecodingModel(model)
    cache = packed.new_cache(2)
    prompts = torch.tensor([[1, 2, 3], [4, 5, 0]])
    out, _ = packed.prefill(prompts, [3, 2], cache, 0)
    model_cache = model.new_cache(2)
    with torch.no_grad():
        expected, _ = model.prefill(prompts, model_cache, torch.tensor([3, 2]))
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
        m = torch.tensor([0.3, 0.9])
        out, hidden = packed.decode(torch.tensor([7, 8]), cache, packed.gate_scales(m, torch.tensor([True, True])))
        expected, state = model.decode_one_token(torch.tensor([7, 8]), model_cache, m[:, None])
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(hidden, state, atol=1e-5, rtol=0)
        out, _ = packed.decode(torch.tensor([9, 9]), cache, packed.gate_scales(m, torch.tensor([False, False])))
        expected, _ = model.decode_one_token(torch.tensor([9, 9]), model_cache, None)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gates_trained", [False, True])
def test_int8_results_equal_those_of_a_batch_of_one_to_the_last_bit(gates_trained: bool) -> None:
    """int8 layers round their inputs to bfloat16, so a difference in the last bit would grow over the steps.

    Prompt lengths and modulations differ between the sequences.
    """
    made = tiny_model(context_length=512, gates_trained=gates_trained, d_model=256)
    with torch.no_grad():
        # The results of attention must be so large that a difference in their last bit has an effect.
        for block in made.blocks:
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                block.get_parameter(f"{name}.weight").mul_(12)
    model = DecodingModel(made, precision="int8")
    prompts = [[token % 256 for token in range(length)] for length in (7, 230, 1, 101, 150, 60)]
    lengths = [len(prompt) for prompt in prompts]
    padded = torch.tensor([[*prompt, *[prompt[-1]] * (230 - len(prompt))] for prompt in prompts])
    m, gated = torch.tensor([0.1, 0.4, 0.9, 0.5, 0.7, 0.0]), torch.tensor([True] * 5 + [False])
    together, own_caches = model.new_cache(6), [model.new_cache() for _ in prompts]
    logits, _ = model.prefill(padded, lengths, together, 0)
    for row, prompt in enumerate(prompts):
        [alone], _ = model.prefill(torch.tensor([prompt]), [len(prompt)], own_caches[row], 0)
        assert torch.equal(alone, logits[row])
    for token in range(100):
        tokens = torch.arange(token, token + 6)
        logits, _ = model.decode(tokens, together, model.gate_scales(m, gated))
        for row, cache in enumerate(own_caches):
            sequence = slice(row, row + 1)
            [alone], _ = model.decode(tokens[sequence], cache, model.gate_scales(m[sequence], gated[sequence]))
            assert torch.equal(alone, logits[row])


def test_int8_logits_are_near_those_of_the_model() -> None:
    model = tiny_model()
    packed, ids = DecodingModel(model, precision="int8"), torch.tensor([[1, 2, 3, 4, 5, 6]])
    cache = packed.new_cache()
    packed.prefill(ids[:, :3], [3], cache, 0)
    with torch.no_grad():
        sequences = model(ids)[0]
    for position in range(3, 6):
        found, _ = packed.decode(ids[0, position : position + 1], cache, None)
        # The tolerance is small, because the logits have a standard deviation of 4.4.
        torch.testing.assert_close(found[0], sequences[position], atol=0.3, rtol=0)


def test_the_text_ends_before_a_stop_string_that_spans_tokens(tokenizer: tiktoken.Encoding) -> None:
    """Tokens are bytes. The stop string is part of the completion that the model generates without a stop string."""
    model = tiny_model(context_length=64)
    full_text = generate(model, "ab", max_tokens=30, seed=3, tokenizer=tokenizer).text
    stop = full_text[10:13]
    pieces: list[TokenStep] = []
    cut = generate(
        model, "ab", max_tokens=30, seed=3, stop=["never", stop], on_token=pieces.append, tokenizer=tokenizer
    )
    assert cut.text == full_text[: full_text.index(stop)]
    assert cut.finish_reason is FinishReason.STOP
    assert "".join(piece.text for piece in pieces) == cut.text


def test_text_held_back_for_a_stop_string_is_returned_at_the_end(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(context_length=64)
    full_text = generate(model, "ab", max_tokens=12, seed=3, tokenizer=tokenizer).text
    delayed = generate(model, "ab", max_tokens=12, seed=3, stop=[full_text[-2:] + "!!"], tokenizer=tokenizer)
    assert delayed.text == full_text
    assert delayed.finish_reason is FinishReason.LENGTH


def test_alternatives_are_the_likeliest_tokens_of_the_scored_distribution(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model()
    settings = GenerationSettings(max_tokens=1, top_log_probs=4, top_k=2, temperature=0.7, repetition_penalty=1.0)
    step = generate_batch(model, [[5, 6]], settings, seeds=[1], tokenizer=tokenizer)[0].trajectory[0]
    with torch.no_grad():
        values, ids = (model(torch.tensor([[5, 6]]))[0, -1] / 0.7).log_softmax(0).topk(4)
    assert [token for token, _ in step.alternatives] == ids.tolist()
    assert [log_prob for _, log_prob in step.alternatives] == pytest.approx(values.tolist(), abs=1e-4)
    assert step.token_id in ids[:2].tolist()


@pytest.mark.parametrize("filters", [{}, {"top_k": None}, {"top_k": None, "top_p": 0.9}], ids=str)
def test_a_row_without_finite_logits_fails_alone(tokenizer: tiktoken.Encoding, filters: dict[str, Any]) -> None:
    made = tiny_model()
    with torch.no_grad():
        made.token_embeddings.weight[7] = float("nan")
    model = DecodingModel(made)
    good = continuation(model, tokenizer, [1, 2], GenerationSettings(max_tokens=3, top_k=1), 1)
    bad = continuation(model, tokenizer, [1, 7], GenerationSettings(max_tokens=3, **filters), 1)
    engine = DecodingEngine(model)
    engine.join([bad, good])
    assert engine.step() == [bad]
    assert isinstance(bad.error, CheckpointError)
    while engine.active:
        engine.step()
    assert good.error is None
    assert len(good.result.token_ids) == 3


def test_memory_grows_with_the_slots_and_free_slots_are_used_again(tokenizer: tiktoken.Encoding) -> None:
    model = DecodingModel(tiny_model())
    engine = DecodingEngine(model)
    short = GenerationSettings(max_tokens=1)
    for _ in range(3):
        engine.join([continuation(model, tokenizer, [number], short, number) for number in range(8)])
        assert len(engine.active) == 8
        assert len(engine.step()) == 8
    delayed = engine.nbytes
    engine.join([continuation(model, tokenizer, [1], short, 1)])
    assert engine.nbytes == delayed
