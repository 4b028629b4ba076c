"""Group-relative advantages equal their definition, share prompts within groups, and train a policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import RLConfig, build
from common.controller import GatingPolicy
from common.errors import ConfigError
from common.rl import DecodingEnvironment, collect_rollout
from common.rl.group_advantages import group_advantages, rewards_to_go
from common.training.hooks import Outcome, StopRequest
from tests.unit.common.rl.toys import END, toy_config, toy_model
from tests.unit.common.rl.trainings import Listener, comparable, run_training, weights_of

torch.set_num_threads(1)

GROUPS = {"num_envs": 6, "advantages": "group", "group_size": 3, "total_steps": 4 * 36}
WEIGHTS = (0.35, 0.15, 0.15, 0.20, 0.15)


def test_advantages_equal_a_computation_episode_by_episode() -> None:
    random = np.random.default_rng(0)
    T, B, size, gamma = 5, 6, 3, 0.9
    lengths, rewards = [5, 2, 4, 1, 1, 3], random.normal(size=(T, B))
    active = np.array([[t < length for length in lengths] for t in range(T)])
    returns = rewards_to_go(torch.from_numpy(rewards), torch.from_numpy(active), gamma)
    advantages = group_advantages(returns, torch.from_numpy(active), size)
    for b in range(B):
        group = range(b // size * size, b // size * size + size)
        for t in range(T):
            if t >= lengths[b]:
                assert returns[t, b] == advantages[t, b] == 0
                continue

            def rest(i: int, t: int = t) -> float:
                return float(sum(gamma ** (k - t) * rewards[k, i] for k in range(t, lengths[i])))

            alive = [i for i in group if t < lengths[i]]
            assert float(returns[t, b]) == pytest.approx(rest(b))
            assert float(advantages[t, b]) == pytest.approx(rest(b) - np.mean([rest(i) for i in alive]), abs=1e-12)
    with pytest.raises(ValueError, match="6 episodes cannot be divided into groups of 4"):
        group_advantages(returns, torch.from_numpy(active), 4)


def test_a_rollout_has_whole_episodes_of_shared_prompts_and_counts_only_these() -> None:
    model, config = toy_model(), toy_config(ppo=GROUPS)
    with torch.no_grad():
        model.output_projection.bias[END] = 4.0
    prompts = [[i, i + 1, i + 2] for i in range(1, 90)]
    environment = DecodingEnvironment(model, prompts, config, None, end_token=END, seed=5)
    torch.manual_seed(1)
    policy, generator = GatingPolicy(), torch.Generator().manual_seed(2)
    seen = []
    for _ in range(3):
        rollout = collect_rollout(environment, policy, 6, weights=WEIGHTS, generator=generator, group_size=3)
        assert rollout is not None and rollout.active is not None
        first = rollout.observation[0]
        for group in (first[:3], first[3:]):
            torch.testing.assert_close(group, group[:1].expand_as(group))
        seen.append(first[0])
        active = rollout.active
        assert bool(active[0].all()) and bool((active[1:] <= active[:-1]).all())
        for b in range(6):
            length = int(active[:, b].sum())
            last = length - 1
            assert bool(rollout.terminated[last, b]) or (length == 6 and bool(rollout.truncated[last, b]))
            assert not bool((rollout.terminated | rollout.truncated)[:last, b].any())
        assert bool((rollout.reward[~active] == 0).all())
        batch, values, returns = rollout.group_batch(group_size=3, gamma=1.0)
        assert len(batch) == int(active.sum()) == len(values) == len(returns)
        assert float(batch.advantage.mean()) == pytest.approx(0, abs=1e-5)
        assert int(rollout.ended.sum()) == 6, "each sequence has one episode"
    assert not torch.equal(seen[0], seen[1]), "each rollout has new prompts"
    assert any(int(part) < 6 for part in rollout.active.sum(0).tolist()) or len(seen) == 3


def test_a_training_with_groups_resumes_exactly_and_counts_every_episode(tmp_path: Path) -> None:
    config = toy_config(ppo=GROUPS)
    _, whole = run_training(tmp_path / "whole", config)
    outcome, before = run_training(tmp_path / "parts", config, Listener(StopRequest.PAUSE, 12))
    assert outcome is Outcome.PAUSED
    outcome, after = run_training(tmp_path / "parts", config)
    assert outcome is Outcome.COMPLETED
    both = Listener()
    both.points = before.points + after.points
    assert comparable(both) == comparable(whole)
    assert [values["episodes"] for _, values in whole.points] == [6, 12, 18, 24]
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_groups_learn_the_modulation_that_the_reward_favours(tmp_path: Path) -> None:
    weights = dict.fromkeys(("perplexity", "diversity", "repetition", "coherence"), 0)
    config = toy_config(
        reward={f"{name}_weight": value for name, value in weights.items()}
        | {"sampling_weight": 1, "sampling_entropy_target": 0.05},
        ppo={
            "advantages": "group",
            "group_size": 8,
            "num_envs": 32,
            "total_steps": 32 * 6 * 24,
            "minibatch_size": 96,
            "epochs": 4,
            "learning_rate": 3e-3,
            "entropy_coef": 0.0,
            "entropy_coef_final": 0.0,
            "gamma": 1.0,
        },
        checkpoint_every_iterations=1000,
    )
    _, hooks = run_training(tmp_path, config)
    first, last = hooks.points[0][1], hooks.points[-1][1]
    assert last["modulation_mean"] < first["modulation_mean"] - 0.1
    assert last["episode_reward"] > first["episode_reward"]


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match="num_envs 30 is not a multiple of group_size 8"):
        build(RLConfig, {"ppo": {"advantages": "group", "num_envs": 30}})
    with pytest.raises(ConfigError, match="the constrained mode needs a critic"):
        build(RLConfig, {"ppo": {"advantages": "group"}, "constraint": {"mode": "lagrangian"}})
