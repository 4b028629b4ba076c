"""Generation with tiny random models equals a slow loop of full forward passes and Python floats."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tiktoken
import torch

from common.config import ModulationConfig
from common.controller import GatingPolicy, build_observation, decoding_parameter_rows, decoding_parameters
from common.errors import CheckpointError, InvalidInputError
from common.generation import (
    FinishReason,
    Generation,
    GenerationSettings,
    TokenStep,
    filtered_probabilities,
    generate,
    generate_batch,
    score,
)
from common.model import ModelConfig, TransformerLM
from tests.unit.common.generation.conftest import END_OF_TEXT, reacting_policy, tiny_model
from tests.unit.common.generation.slow_noise import slow_noise

torch.set_num_threads(1)
MODES = ["none", "fixed", "random", "learned"]


def slow_generation(
    model: TransformerLM, prompt: list[int], mode: str, seed: int, max_tokens: int, actor: GatingPolicy
) -> tuple[list[int], list[float]]:
    """Return the tokens and modulations that full forward passes without a cache give.

    The sequence must fit into the context window, and the gates get no modulation.
    """
    tokens, modulations, previous = list(prompt), [], 0.0
    for step in range(max_tokens):
        with torch.no_grad():
            hidden = model.hidden_states(torch.tensor([tokens]))[0, -1]
            logits = model.project(hidden)
            for_modulation, for_token = slow_noise(seed, step, 0), slow_noise(seed, step, 1)
            observation = build_observation(
                tokens, logits, hidden, step=step, episode_length=max_tokens, previous_action=previous
            )
            m = {
                "fixed": 0.3,
                "random": for_modulation,
                "learned": actor.act(observation[None], deterministic=True).action.item(),
            }.get(mode)
        temperature, top_k, top_p, penalty = (0.8, 50, 1.0, 1.2) if m is None else decoding_parameters(m)
        assert top_k is not None
        scored = [
            (value / penalty if value > 0 else value * penalty) / temperature if i in tokens else value / temperature
            for i, value in enumerate(logits.tolist())
        ]
        probabilities = torch.softmax(torch.tensor(scored), 0)
        ordered = sorted(((p, i) for i, p in enumerate(probabilities.tolist())), reverse=True)
        kept, before = [], 0.0
        for probability, token in ordered[:top_k]:
            if before <= top_p:
                kept.append((probability, token))
            before += probability
        target = for_token * sum(p for p, _ in kept)
        cumulative = itertools.accumulate(p for p, _ in kept)
        tokens.append(next(token for total, (_, token) in zip(cumulative, kept, strict=True) if total > target))
        if m is not None:
            modulations.append(m)
            previous = m
    return tokens[len(prompt) :], modulations


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_equals_a_slow_loop_without_cache(tokenizer: tiktoken.Encoding, mode: str) -> None:
    model, actor, prompt = tiny_model(context_length=40), reacting_policy(), [5, 9, 9, 30]
    result = generate(
        model, prompt, max_tokens=30, gating_mode=mode, modulation=0.3, seed=11, policy=actor, tokenizer=tokenizer
    )
    tokens, modulations = slow_generation(model, prompt, mode, 11, 30, actor)
    assert result.token_ids == tokens
    assert [step.modulation for step in result.trajectory if step.modulation is not None] == pytest.approx(
        modulations, abs=1e-4
    )
    assert result.finish_reason is FinishReason.LENGTH
    assert result.truncated == 0


@pytest.mark.parametrize("top_k", [None, 1, 50])
def test_temperature_0_takes_the_likeliest_token_each_time(tokenizer: tiktoken.Encoding, top_k: int | None) -> None:
    model, prompt = tiny_model(context_length=40), [5, 9, 9, 30]
    tokens = list(prompt)
    for _ in range(12):
        with torch.no_grad():
            logits = model.project(model.hidden_states(torch.tensor([tokens]))[0, -1]).tolist()
        scored = [
            (value / 1.2 if value > 0 else value * 1.2) if i in tokens else value for i, value in enumerate(logits)
        ]
        tokens.append(scored.index(max(scored)))
    for seed in (1, 2):
        result = generate(
            model, prompt, max_tokens=12, temperature=0, top_k=top_k, top_p=0.9, seed=seed, tokenizer=tokenizer
        )
        assert result.token_ids == tokens[4:]
        in_force = {(step.temperature, step.top_k) for step in result.trajectory}
        assert in_force == {(1.0, 1)} == {(result.effective.temperature, result.effective.top_k)}


@pytest.mark.parametrize("mode", MODES)
def test_a_row_does_not_depend_on_its_batch(tokenizer: tiktoken.Encoding, mode: str) -> None:
    """Each prompt gives the same tokens in a batch as alone.

    All sequences exceed the context window; one prompt is empty.
    """
    model, settings = tiny_model(), GenerationSettings(max_tokens=40, gating_mode=mode, policy=reacting_policy())
    prompts: list[list[int]] = [[1, 2, 3], [], list(range(60)), [7]]
    together = generate_batch(model, prompts, settings, seeds=[3, 4, 5, 6], tokenizer=tokenizer)
    for prompt, seed, row in zip(prompts, [3, 4, 5, 6], together, strict=True):
        alone = generate_batch(model, [prompt], settings, seeds=[seed], tokenizer=tokenizer)[0]
        assert alone.token_ids == row.token_ids
        assert alone.truncated == row.truncated > 0


def test_one_seed_gives_one_result_and_a_fresh_seed_is_reported(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model()

    def run(seed: int | None) -> Generation:
        return generate(model, "ab", max_tokens=12, gating_mode="random", seed=seed, tokenizer=tokenizer)

    first = run(None)
    assert run(first.effective.seed).token_ids == first.token_ids
    assert run(first.effective.seed + 1).token_ids != first.token_ids


def test_trajectory_holds_what_each_token_was_sampled_with(tokenizer: tiktoken.Encoding) -> None:
    result = generate(
        tiny_model(), "ab", max_tokens=5, gating_mode="fixed", modulation=0.25, seed=1, tokenizer=tokenizer
    )
    expected = decoding_parameters(0.25)
    for step in result.trajectory:
        assert step.modulation == pytest.approx(0.25)
        assert step.top_k == expected.top_k
        assert step.temperature == pytest.approx(expected.temperature)
        assert step.top_p == pytest.approx(expected.top_p)
        assert step.repetition_penalty == pytest.approx(expected.repetition_penalty)
        assert step.log_prob < 0 < step.entropy
        assert step.sampling_entropy <= step.entropy
    assert result.effective.temperature == pytest.approx(expected.temperature)
    assert [step.token_id for step in result.trajectory] == result.token_ids
    plain = generate(tiny_model(), "ab", max_tokens=2, top_k=None, top_p=0.9, seed=1, tokenizer=tokenizer)
    assert {(step.modulation, step.top_k) for step in plain.trajectory} == {(None, None)}
    assert plain.effective.top_p == pytest.approx(0.9)


def test_end_of_text_stops_and_is_not_part_of_the_text(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(end_of_text_bias=1000.0)
    result = generate(model, "ab", max_tokens=5, seed=1, tokenizer=tokenizer)
    assert (result.finish_reason, result.token_ids, result.text) == (FinishReason.STOP, [], "")
    settings = GenerationSettings(max_tokens=5, ignore_end_of_text=True, repetition_penalty=1.0)
    on = generate_batch(model, ["ab"], settings, seeds=[1], tokenizer=tokenizer)[0]
    assert on.token_ids == [END_OF_TEXT] * 5


def test_an_empty_prompt_starts_a_new_document(tokenizer: tiktoken.Encoding) -> None:
    """For an empty prompt, the model reads end-of-text. This token is not part of the sequence and gets no penalty."""
    model = tiny_model()
    result = generate(model, "", max_tokens=1, seed=5, tokenizer=tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([[END_OF_TEXT]]))[:, -1]
    entropy = torch.distributions.Categorical(logits=logits / 0.8).entropy()
    assert result.trajectory[0].entropy == pytest.approx(entropy.item(), abs=1e-3)
    assert result.prompt_token_ids == []


def test_a_full_window_drops_its_oldest_half(tokenizer: tiktoken.Encoding) -> None:
    """The context window holds 8 tokens: the prompt of three and five more. For the ninth, four are dropped."""
    model = tiny_model(context_length=8)
    result = generate(model, [1, 2, 3], max_tokens=7, repetition_penalty=1.0, seed=2, tokenizer=tokenizer)
    sequence = [1, 2, 3, *result.token_ids]
    assert result.truncated == 4
    # The last token was sampled when the context window contained sequence[4:9].
    with torch.no_grad():
        logits = model(torch.tensor([sequence[4:9]]))[:, -1]
    entropy = torch.distributions.Categorical(logits=logits / 0.8).entropy()
    assert result.trajectory[6].entropy == pytest.approx(entropy.item(), abs=1e-3)


def test_a_long_prompt_keeps_its_last_tokens_and_its_whole_history(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model(context_length=8)
    prompt = [*range(100, 130), 1, 2, 3, 4, 5, 6, 7]
    result = generate(model, prompt, max_tokens=1, repetition_penalty=1.7, seed=2, tokenizer=tokenizer)
    assert result.truncated == len(prompt) - 7
    with torch.no_grad():
        logits = model(torch.tensor([prompt[-7:]]))[0, -1]
    penalised = [
        (v / 1.7 if v > 0 else v * 1.7) / 0.8 if i in prompt else v / 0.8 for i, v in enumerate(logits.tolist())
    ]
    entropy = torch.distributions.Categorical(logits=torch.tensor(penalised)).entropy()
    assert result.trajectory[0].entropy == pytest.approx(entropy.item(), abs=1e-3)


@pytest.mark.parametrize("trained", [True, False])
def test_gates_are_fed_only_when_they_were_trained(tokenizer: tiktoken.Encoding, trained: bool) -> None:
    """The prompt is prefilled without modulation, and each generated token is decoded with its modulation."""
    model = tiny_model(gates_trained=trained)
    result = generate(model, [1, 2], max_tokens=3, gating_mode="fixed", modulation=0.9, seed=3, tokenizer=tokenizer)
    assert result.effective.gates_fed is trained
    cache = model.new_cache(1)
    logits, _ = model.prefill(torch.tensor([[1, 2]]), cache)
    m = torch.tensor([[0.9]]) if trained else None
    sequence = [1, 2]
    for token, step in zip(result.token_ids, result.trajectory, strict=True):
        seen = torch.zeros(1, 257, dtype=torch.bool)
        seen[0, sequence] = True
        parameters = decoding_parameter_rows(torch.tensor([0.9]))
        scores = score(logits, seen, parameters)
        assert step.entropy == pytest.approx(scores.entropy.item(), abs=1e-3)
        assert filtered_probabilities(scores, parameters)[0, token] > 0
        sequence.append(token)
        logits, _ = model.decode_one_token(torch.tensor([token]), cache, m)


def test_streamed_pieces_join_to_the_text(tokenizer: tiktoken.Encoding) -> None:
    pieces: list[TokenStep] = []
    result = generate(
        tiny_model(), "é", max_tokens=40, gating_mode="random", seed=9, on_token=pieces.append, tokenizer=tokenizer
    )
    assert "".join(piece.text for piece in pieces) == result.text
    assert result.text == tokenizer.decode(result.token_ids, errors="replace")


def test_cancelling_ends_the_generation_and_keeps_what_there_is(tokenizer: tiktoken.Encoding) -> None:
    pieces: list[TokenStep] = []
    result = generate(
        tiny_model(),
        "ab",
        max_tokens=100,
        seed=9,
        on_token=pieces.append,
        cancelled=lambda: len(pieces) == 4,
        tokenizer=tokenizer,
    )
    assert result.finish_reason is FinishReason.CANCELLED
    assert len(result.token_ids) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1},
        {"temperature": 0.0009},
        {"temperature": -0.0001},
        {"temperature": 1e-40},
        {"temperature": float("nan")},
        {"temperature": 1e4},
        {"top_k": 0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": 1e-39},
        {"repetition_penalty": 1e3},
        {"gating_mode": "fixed", "modulation_config": ModulationConfig(base_temperature=1e-9)},
        {"gating_mode": "creative"},
        {"gating_mode": "fixed", "modulation": 1.2},
        {"gating_mode": "learned"},
    ],
    ids=str,
)
def test_values_out_of_range_are_named(tokenizer: tiktoken.Encoding, wrong: dict[str, Any]) -> None:
    name = list(wrong)[-1].replace("gating_mode", "gating mode")
    with pytest.raises(InvalidInputError, match=name):
        generate(tiny_model(), "ab", tokenizer=tokenizer, **wrong)


def test_prompts_the_model_cannot_read_are_refused(tokenizer: tiktoken.Encoding) -> None:
    with pytest.raises(InvalidInputError, match="257"):
        generate(tiny_model(), [1, 257], tokenizer=tokenizer)
    without = TransformerLM(ModelConfig(vocab_size=200, d_model=16, num_layers=1, num_heads=2, ffn_dim=8))
    with pytest.raises(InvalidInputError, match="empty"):
        generate(without, [], tokenizer=tokenizer)
    with pytest.raises(InvalidInputError, match="seeds"):
        generate_batch(tiny_model(), ["a"], seeds=[1, 2], tokenizer=tokenizer)


def test_a_model_in_training_stays_in_training(tokenizer: tiktoken.Encoding) -> None:
    """Generation disables dropout, so two runs give the same result."""
    model = tiny_model().train()
    first, second = (generate(model, "ab", max_tokens=8, seed=1, tokenizer=tokenizer) for _ in range(2))
    assert first.token_ids == second.token_ids
    assert model.training


def test_a_diverged_model_is_named_as_the_cause(tokenizer: tiktoken.Encoding) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.output_projection.bias, float("nan"))
    with pytest.raises(CheckpointError, match="finite"):
        generate(model, "ab", tokenizer=tokenizer)
