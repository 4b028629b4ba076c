"""Each sequence in the batched environment equals the same sequence decoded alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.config import REWARD_COMPONENTS, RLConfig
from common.config.model import NANOCHAT
from common.controller import GatingPolicy, build_observation, decoding_parameters
from common.errors import ConfigError
from common.model import TransformerLM
from common.rl import DecodingEnvironment, NgramStatistics, collect_rollout, reward_weights, step_reward
from tests.unit.common.rl.toys import END, VOCAB, toy_config, toy_model

torch.set_num_threads(1)

PROMPTS = [[5, 6], [7, 8, 9, 7], [1, 1, 2, 3, 4], [40, 41, 42]]
STATISTICS = NgramStatistics.from_sequences([[5, 6, 7, 8, 9, 40, 41, 5, 6], [1, 2, 3, 4, 1, 1]], VOCAB)


def _environment(
    model: TransformerLM, config: RLConfig, end_token: int | None = None, seed: int = 1
) -> DecodingEnvironment:
    return DecodingEnvironment(model, PROMPTS, config, STATISTICS, end_token=end_token, seed=seed)


class PlainSequence:
    """The reference: one sequence, computed alone with full forward passes, full sorts and simple counting."""

    def __init__(self, model: TransformerLM, config: RLConfig, prompt: list[int]) -> None:
        self.model, self.config = model, config
        self.tokens, self.step, self.previous = list(prompt), 0, 0.0
        self.modulations: list[float | None] = [None] * len(prompt)

    def _state(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            hidden = self.model.hidden_states(torch.tensor([self.tokens]))[0, -1]
            return self.model.project(hidden), hidden

    def observation(self) -> Tensor:
        logits, hidden = self._state()
        return build_observation(
            self.tokens,
            logits,
            hidden,
            step=self.step,
            episode_length=self.config.episode.max_length,
            previous_action=self.previous,
        )

    def take(self, token: int, modulation: float) -> tuple[list[float], float]:
        """Append `token`; return its reward components and its sampling probability under `modulation`."""
        p = decoding_parameters(modulation, self.config.modulation)
        logits, _ = self._state()
        for seen in set(self.tokens):
            value = logits[seen]
            logits[seen] = value / p.repetition_penalty if value > 0 else value * p.repetition_penalty
        scored = (logits / p.temperature).double()
        order = scored.softmax(-1).sort(descending=True)
        kept, before = torch.zeros(VOCAB, dtype=torch.float64), 0.0
        for rank, (mass, index) in enumerate(zip(order.values.tolist(), order.indices.tolist(), strict=True)):
            if (before <= p.top_p or p.top_p >= 1) and (p.top_k is None or rank < p.top_k):
                kept[index] = mass
            before += mass
        kept /= kept.sum()
        entropy = float(-sum(q * torch.tensor(q).log() for q in kept.tolist() if q > 0))
        reward = step_reward(scored, token, self.tokens, entropy, STATISTICS, self.config.reward)
        self.tokens.append(token)
        self.step += 1
        self.previous = modulation
        return [reward.components[name] for name in REWARD_COMPONENTS], float(kept[token])


def test_every_row_equals_plain_decoding_across_restarts() -> None:
    model, config = toy_model(), toy_config()
    environment = _environment(model, config)
    environment.refill(20)
    generator = torch.Generator().manual_seed(0)
    rows: list[PlainSequence | None] = [None] * 3
    checked = restarts = 0
    for _ in range(20):
        history = environment.decoder.history
        for b, row in enumerate(rows):
            if row is None:
                start = history.tokens[b, : int(history.length[b])].tolist()
                assert start in PROMPTS
                rows[b] = PlainSequence(model, config, start)
        action = torch.rand(3, 1, generator=generator)
        before = environment.observation.clone()
        lengths = history.length.tolist()
        transition = environment.step(action)
        for b in range(3):
            row = rows[b]
            assert row is not None
            torch.testing.assert_close(before[b], row.observation(), atol=1e-4, rtol=1e-4)
            over = bool(transition.terminated[b] | transition.truncated[b])
            token = _last_token(environment, b, lengths[b], over, row, transition.next_observation[b], float(action[b]))
            components, probability = row.take(token, float(action[b]))
            assert probability > 0, "a token outside top-p and top-k was sampled"
            torch.testing.assert_close(transition.components[b], torch.tensor(components), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(transition.next_observation[b], row.observation(), atol=1e-4, rtol=1e-4)
            assert over == (row.step == config.episode.max_length)
            checked += 1
            if over:
                rows[b] = None
                restarts += 1
    assert (checked, restarts) == (60, 9)


def _last_token(
    environment: DecodingEnvironment,
    b: int,
    place: int,
    over: bool,
    row: PlainSequence,
    following: Tensor,
    action: float,
) -> int:
    """Return the newest token of a sequence.

    At the end of an episode (`over`) the environment has already replaced the sequence by a new one. The token is then
    found by trying which token gives the observation `following`.
    """
    if not over:
        return int(environment.decoder.history.tokens[b, place])
    for token in range(VOCAB):
        trial = PlainSequence(row.model, row.config, [*row.tokens, token])
        trial.step, trial.previous = row.step + 1, action
        if torch.allclose(trial.observation(), following, atol=1e-5):
            return token
    raise AssertionError("no token explains the last observation of the episode")


def test_end_of_text_terminates_and_the_time_limit_truncates() -> None:
    model = toy_model()
    with torch.no_grad():
        model.output_projection.bias[END] = 4.0
    config = toy_config()
    environment = _environment(model, config, end_token=END)
    environment.refill(60)
    terminated = truncated = 0
    for _ in range(60):
        steps = environment.steps + 1
        moved = environment.step(torch.full((3, 1), 0.4))
        assert not (moved.terminated & moved.truncated).any()
        ended = moved.terminated | moved.truncated
        assert environment.steps[ended].tolist() == [0] * int(ended.sum())
        assert torch.equal(environment.steps[~ended], steps[~ended])
        assert (steps[moved.truncated] == config.episode.max_length).all()
        terminated += int(moved.terminated.sum())
        truncated += int(moved.truncated.sum())
    assert terminated > 5
    assert truncated > 5


def test_trained_gates_are_fed_the_modulation_and_others_are_not() -> None:
    for trained in (False, True):
        model = toy_model(gates_trained=trained)
        ends = []
        for modulation in (0.0, 1.0):
            environment = _environment(model, toy_config())
            environment.decoder.max_top_k = 1
            environment.step(torch.full((3, 1), modulation))
            ends.append((environment.decoder.history.tokens.clone(), environment.decoder.hidden.clone()))
        same_tokens = (ends[0][0] == ends[1][0]).all(1)
        assert same_tokens.any()
        differ = (ends[0][1] - ends[1][1])[same_tokens].abs().max()
        assert (differ > 1e-3) == trained


def test_a_model_without_gates_is_steered_through_the_decoding_parameters() -> None:
    config, policy = toy_config(), GatingPolicy()
    model = toy_model(**NANOCHAT)
    rollout = collect_rollout(
        _environment(model, config), policy, 8, weights=reward_weights(config.reward), generator=torch.Generator()
    )
    assert rollout is not None and rollout.reward.isfinite().all()
    distinct = []
    for modulation in (0.0, 1.0):
        environment = _environment(model, config)
        tokens: list[int] = []
        for _ in range(40):
            environment.step(torch.full((3, 1), modulation))
            tokens += environment.decoder.history.recent(1).flatten().tolist()
        distinct.append(len(set(tokens)))
    assert distinct[1] > distinct[0]  # a high temperature and top-k select more different tokens


def test_a_state_round_trip_is_exact() -> None:
    model, config = toy_model(), toy_config()
    policy = GatingPolicy()

    def rollouts(environment: DecodingEnvironment, count: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(4)
        found = []
        for _ in range(count):
            rollout = collect_rollout(
                environment, policy, 8, weights=reward_weights(config.reward), generator=generator
            )
            assert rollout is not None
            found += [rollout.observation, rollout.reward, rollout.next_value]
        return found

    first = _environment(model, config)
    rollouts(first, 2)
    state = first.state_dict()
    expected = rollouts(first, 2)
    second = _environment(model, config, seed=99)
    second.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(expected, rollouts(second, 2), strict=True))
    first.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(expected, rollouts(first, 2), strict=True))


def test_an_episode_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"use episode\.max_length 27 or less"):
        _environment(toy_model(), toy_config(episode={"max_length": 28}))


def test_no_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        DecodingEnvironment(toy_model(), [], toy_config(), None, end_token=None, seed=0)
