"""Controller training on a CUDA device, which `StandInDevice` replaces: no token of a rollout waits for the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from common.config import PolicyConfig
from common.controller import GatingPolicy
from common.rl.environment import DecodingEnvironment
from common.rl.ppo import ppo_update
from common.rl.prompts import ngram_statistics, training_prompts
from common.rl.rollout import Rollout, collect_rollout
from tests.stand_in_device import StandInDevice
from tests.unit.common.rl.toys import END, VOCAB, toy_config, toy_corpus, toy_model

STEPS = 7
"""More than one episode of the toy configuration, so that all sequences restart."""
WEIGHTS = (0.3, 0.2, 0.1, 0.2, 0.2)


def rollout_on(device: str, distribution: str) -> tuple[DecodingEnvironment, GatingPolicy, Any]:
    """Return an environment, a policy and the generator of its actions on a device."""
    config, corpus = toy_config(), toy_corpus()
    torch.manual_seed(4)
    policy = GatingPolicy(PolicyConfig(distribution=distribution)).to(device)
    model = toy_model(gates_trained=True).requires_grad_(False).to(device)
    statistics = ngram_statistics(corpus, config, VOCAB)
    prompts = training_prompts(corpus, config)
    environment = DecodingEnvironment(model, prompts, config, statistics, end_token=END, seed=1)
    return environment, policy, torch.Generator(device).manual_seed(2)


def update(policy: GatingPolicy, rollout: Rollout) -> dict[str, float]:
    """Run one epoch of minibatches of 8 transitions."""
    batch, _, _ = rollout.batch(gamma=0.99, gae_lambda=0.95)
    return ppo_update(
        policy,
        torch.optim.Adam(policy.parameters(), lr=1e-3),
        batch,
        epochs=1,
        minibatch_size=8,
        clip_range=0.2,
        value_coef=0.5,
        entropy_coef=0.01,
        max_grad_norm=0.5,
        generator=torch.Generator().manual_seed(3),
    )


@pytest.mark.parametrize("distribution", ["beta", "gaussian"])
def test_no_token_of_a_rollout_waits_and_each_update_waits_once(distribution: str) -> None:
    environment, policy, generator = rollout_on("cpu", distribution)
    plain = collect_rollout(environment, policy, STEPS, weights=WEIGHTS, generator=generator)
    assert plain is not None
    expected = update(policy, plain)
    with StandInDevice() as device:
        environment, policy, generator = rollout_on("cuda:0", distribution)
        device.waits.clear()
        rollout = collect_rollout(environment, policy, STEPS, weights=WEIGHTS, generator=generator)
        assert rollout is not None
        assert not device.waits
        assert device.operations.total() > 1000
        # The first call copies constants to the device, where they stay.
        policy.evaluate(rollout.observation[0], rollout.action[0])
        device.waits.clear()
        actual = update(policy, rollout)
        minibatches = -(-STEPS * environment.num_envs // 8)
        assert _by_function(device.waits) == {"ppo_update": minibatches + 1}
        assert torch.equal(rollout.terminated.cpu(), plain.terminated)
        torch.testing.assert_close(rollout.reward.cpu(), plain.reward)
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert bool((plain.terminated | plain.truncated).any())


def test_a_planted_read_of_a_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = DecodingEnvironment.step
    monkeypatch.setattr(
        DecodingEnvironment, "step", lambda self, action: plain(self, action * float(action.max() <= 1.0))
    )
    with StandInDevice() as device:
        environment, policy, generator = rollout_on("cuda:0", "beta")
        device.waits.clear()
        collect_rollout(environment, policy, STEPS, weights=WEIGHTS, generator=generator)
    assert _by_function(device.waits) == {"collect_rollout": STEPS}


def _by_function(waits: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for place, count in waits.items():
        found[place.split(":")[1]] += count
    return found
