"""The gating modes in a running batch: the modulation of each slot, and the noise that the slot uses."""

from __future__ import annotations

import pytest
import torch

from common.controller import GatingPolicy, build_observation, decoding_parameters
from common.errors import InvalidInputError
from common.generation import GenerationSettings
from common.generation.sampling.noise import row_noise
from common.generation.slot_states import LONG_SEQUENCE, SlotStates
from tidal_client.vocabulary import GatingMode

torch.set_num_threads(1)
VOCABULARY = 8
PROMPTS = [[1, 2, 3], [4, 4], [], [5]]


def policy() -> GatingPolicy:
    torch.manual_seed(3)
    made = GatingPolicy().eval()
    torch.nn.init.normal_(made.get_parameter("actor_head.2.weight"), std=2.0)
    return made


def slots_of(*settings: GenerationSettings) -> SlotStates:
    slots = SlotStates(VOCABULARY)
    for number, own in enumerate(settings):
        slots.join(PROMPTS[number], own, seed=20 + number)
    return slots


def states(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, VOCABULARY, generator=generator), torch.randn(n, 48, generator=generator)


def test_every_slot_of_a_mixed_batch_has_its_own_modulation_and_parameters() -> None:
    actor, (logits, hidden) = policy(), states(4)
    slots = slots_of(
        GenerationSettings(temperature=0.7, top_k=3, top_p=0.9, repetition_penalty=1.5),
        GenerationSettings(gating_mode="fixed", modulation=0.25),
        GenerationSettings(gating_mode="random"),
        GenerationSettings(gating_mode="learned", policy=actor, episode_length=9),
    )
    plan = slots.plan(logits, hidden)
    observation = build_observation(PROMPTS[3], logits[3], hidden[3], step=0, episode_length=9)
    learned = actor.act(observation[None], deterministic=True).action.item()
    random_modulation = row_noise(torch.tensor([22]), torch.tensor([0]))[0].item()
    assert plan.modulation[1:].tolist() == pytest.approx([0.25, random_modulation, learned], abs=1e-5)
    expected = [(0.7, 3, 0.9, 1.5), *(decoding_parameters(m) for m in (0.25, random_modulation, learned))]
    for slot, expected_parameters in enumerate(expected):
        found = [values[slot].item() for values in plan.parameters]
        named = dict(zip(plan.parameters._fields, found, strict=True))
        assert named["top_k"] == expected_parameters[1]
        assert [named["temperature"], named["top_p"], named["repetition_penalty"]] == pytest.approx(
            [expected_parameters[0], expected_parameters[2], expected_parameters[3]], abs=1e-4
        )
    assert slots.gated.tolist() == [False, True, True, True]


def test_the_policy_sees_step_history_and_its_last_action() -> None:
    actor, (logits, hidden) = policy(), states(2)
    learned = GenerationSettings(gating_mode="learned", policy=actor, max_tokens=10)
    slots = slots_of(learned, learned)
    first = slots.plan(logits, hidden).modulation.clone()
    slots.append(torch.tensor([6, 7]), first)
    second = slots.plan(logits, hidden).modulation
    for slot, token in enumerate([6, 7]):
        observation = build_observation(
            [*PROMPTS[slot], token],
            logits[slot],
            hidden[slot],
            step=1,
            episode_length=10,
            previous_action=first[slot].item(),
        )
        assert second[slot].item() == pytest.approx(
            actor.act(observation[None], deterministic=True).action.item(), abs=1e-5
        )


def test_a_long_prompt_does_not_widen_the_token_tensor_of_the_others() -> None:
    """Without a policy, a slot keeps only the distinct tokens. A policy uses the counts of tokens, so it needs all."""
    actor, (logits, hidden) = policy(), states(3)
    long = [number % 7 * number % 5 for number in range(LONG_SEQUENCE + 40)]
    learned = GenerationSettings(gating_mode="learned", policy=actor, max_tokens=10)
    slots = SlotStates(VOCABULARY)
    slots.join(long, GenerationSettings(), seed=1)
    assert sorted(slots.tokens[0].tolist()) == sorted(set(long))
    slots.join(long, learned, seed=2)
    slots.join([3, 3, 6], learned, seed=3)
    first = slots.plan(logits, hidden).modulation.clone()
    slots.append(torch.tensor([6, 7, 6]), first)
    assert slots.tokens.shape == (3, len(set(long)) + 1)
    [(number, own)] = slots.long_sequences
    assert (number, own[0].tolist()) == (1, [*long, 7])
    second = slots.plan(logits, hidden).modulation
    for slot, tokens in [(1, [*long, 7]), (2, [3, 3, 6, 6])]:
        observation = build_observation(
            tokens, logits[slot], hidden[slot], step=1, episode_length=10, previous_action=first[slot].item()
        )
        action = actor.act(observation[None], deterministic=True).action.item()
        assert second[slot].item() == pytest.approx(action, abs=1e-5)


def test_two_policies_in_one_batch_act_on_their_own_rows() -> None:
    torch.manual_seed(4)
    first, second = policy(), GatingPolicy().eval()
    (logits, hidden), settings = (
        states(3),
        [GenerationSettings(gating_mode="learned", policy=p) for p in (first, second)],
    )
    mixed = slots_of(settings[0], settings[1], settings[0]).plan(logits, hidden).modulation
    for slot, own in enumerate([settings[0], settings[1], settings[0]]):
        alone = SlotStates(VOCABULARY)
        alone.join(PROMPTS[slot], own, seed=20 + slot)
        found = alone.plan(logits[slot : slot + 1], hidden[slot : slot + 1]).modulation
        torch.testing.assert_close(mixed[slot], found[0], atol=1e-6, rtol=0)


def test_a_sampled_action_depends_only_on_the_seed_of_its_slot() -> None:
    actor, (logits, hidden) = policy(), states(4)
    sampling = GenerationSettings(gating_mode="learned", policy=actor, sample_actions=True)
    still = GenerationSettings(gating_mode="learned", policy=actor)
    together = slots_of(sampling, still, sampling, sampling).plan(logits, hidden).modulation
    alone = SlotStates(VOCABULARY)
    alone.join(PROMPTS[2], sampling, seed=22)
    assert alone.plan(logits[2:3], hidden[2:3]).modulation.item() == pytest.approx(together[2].item(), abs=1e-6)
    other = SlotStates(VOCABULARY)
    other.join(PROMPTS[2], sampling, seed=23)
    assert other.plan(logits[2:3], hidden[2:3]).modulation.item() != pytest.approx(together[2].item(), abs=1e-6)


def test_the_last_slot_replaces_a_removed_one() -> None:
    actor, (logits, hidden) = policy(), states(4)
    settings = [
        GenerationSettings(gating_mode="random"),
        GenerationSettings(gating_mode="fixed", modulation=0.1),
        GenerationSettings(gating_mode="fixed", modulation=0.2),
        GenerationSettings(gating_mode="learned", policy=actor),
    ]
    slots = slots_of(*settings)
    before = slots.plan(logits, hidden).modulation.clone()
    slots.remove(1)
    order = [0, 3, 2]
    torch.testing.assert_close(slots.plan(logits[order], hidden[order]).modulation, before[order])
    assert slots.tokens[1, 0] == 5


def test_impossible_gatings_are_refused() -> None:
    assert GenerationSettings(gating_mode="fixed").gating_mode is GatingMode.FIXED
    with pytest.raises(InvalidInputError, match="none, fixed, random, learned"):
        GenerationSettings(gating_mode="wild")
    with pytest.raises(InvalidInputError, match="controller"):
        GenerationSettings(gating_mode="learned")
    with pytest.raises(InvalidInputError, match="needs 20"):
        GenerationSettings(gating_mode="learned", policy=GatingPolicy(observation_dim=20))
    with pytest.raises(InvalidInputError, match=r"1\.5"):
        GenerationSettings(gating_mode="fixed", modulation=1.5)
