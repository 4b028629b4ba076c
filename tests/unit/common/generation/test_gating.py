"""What each gating mode picks."""

from __future__ import annotations

import pytest
import torch

from common.controller import GatingPolicy, TokenHistory, build_observation
from common.errors import InvalidInputError
from common.generation import FixedGating, NoGating, RowNoise, StepContext, make_gating

SEQUENCES = [[1, 2, 3], [4, 4]]


def context() -> StepContext:
    generator = torch.Generator().manual_seed(0)
    return StepContext(
        history=TokenHistory.of(SEQUENCES, vocab_size=8),
        logits=torch.randn(2, 8, generator=generator),
        hidden=torch.randn(2, 48, generator=generator),
        step=torch.tensor([3, 0]),
        episode_length=9,
        previous_action=torch.tensor([0.7, 0.0]),
        uniform=torch.tensor([0.25, 0.75]),
    )


def test_none_fixed_and_random() -> None:
    assert make_gating("none")(context()) is None
    assert isinstance(make_gating("none"), NoGating)
    fixed = make_gating("fixed", modulation=0.125)(context())
    assert fixed is not None
    assert fixed.tolist() == [[0.125], [0.125]]
    random = make_gating("random")(context())
    assert random is not None
    assert random.tolist() == [[0.25], [0.75]]


def test_learned_takes_the_deterministic_action_on_the_current_observation() -> None:
    policy, given = GatingPolicy(), context()
    torch.nn.init.normal_(policy.get_parameter("actor_head.2.weight"), std=2.0)
    picked = make_gating("learned", policy=policy)(given)
    assert picked is not None
    for row, tokens in enumerate(SEQUENCES):
        observation = build_observation(
            tokens,
            given.logits[row],
            given.hidden[row],
            step=int(given.step[row]),
            episode_length=9,
            previous_action=float(given.previous_action[row]),
        )
        expected = policy.act(observation[None], deterministic=True).action
        torch.testing.assert_close(picked[row], expected[0], atol=1e-5, rtol=0)


def test_sampled_actions_follow_their_generator() -> None:
    policy = GatingPolicy()
    draws = [
        make_gating("learned", policy=policy, sample_actions=True, generator=torch.Generator().manual_seed(seed))(
            context()
        )
        for seed in (1, 1, 2)
    ]
    assert draws[0] is not None and draws[1] is not None and draws[2] is not None
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_impossible_gatings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="none, fixed, random, learned"):
        make_gating("wild")
    with pytest.raises(InvalidInputError, match="controller"):
        make_gating("learned")
    with pytest.raises(InvalidInputError, match="wants 20"):
        make_gating("learned", policy=GatingPolicy(observation_dim=20))
    with pytest.raises(InvalidInputError, match=r"1\.5"):
        FixedGating(1.5)


def test_noise_of_a_row_does_not_depend_on_its_neighbours() -> None:
    together, alone = RowNoise([3, 4]), RowNoise([4])
    for _ in range(130):  # more than two blocks
        both, one = together.step(), alone.step()
        for many, single in zip(both, one, strict=True):
            assert many[1] == single[0]
            assert ((many >= 0) & (many < 1)).all()
