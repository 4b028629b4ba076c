"""The table of rewards equals a computation token by token, and the headroom states what a known problem contains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config import REWARD_COMPONENTS, RLConfig
from common.controller import build_observation, decoding_parameters
from common.errors import ConfigError, DataError
from common.rl import measure_headroom, run_headroom_job, step_reward
from common.rl.ablation import CONSTANTS
from common.rl.headroom import POLICIES, headroom_documents, headroom_positions, summarise_table
from common.rl.headroom_policies import supervised_fit, value_of
from common.rl.prompts import ngram_statistics
from common.rl.reward_table import RewardTable, reward_table
from common.training.hooks import NullHooks, Outcome, StopRequest
from tests.unit.common.rl.toys import VOCAB, toy_config, toy_corpus, toy_model
from tests.unit.common.rl.trainings import Listener

torch.set_num_threads(1)
HEADROOM: dict[str, Any] = {"documents": 6, "positions": 3, "bootstrap_resamples": 100}


def expected_reward(logits: torch.Tensor, context: list[int], m: float, config: RLConfig, statistics: Any) -> Any:
    """Return total and components of the reward, averaged over the sampled token, with Python lists and floats."""
    parameters = decoding_parameters(m, config.modulation)
    scored = logits.double().clone()
    for token in set(context):
        value = scored[token]
        scored[token] = value / parameters.repetition_penalty if value > 0 else value * parameters.repetition_penalty
    scored = scored / parameters.temperature
    probabilities = scored.softmax(-1).tolist()
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept, before = [], 0.0
    for token in order:
        if before <= parameters.top_p or parameters.top_p >= 1:
            kept.append(token)
        before += probabilities[token]
    assert parameters.top_k is not None
    kept = kept[: parameters.top_k]
    mass = sum(probabilities[token] for token in kept)
    shares = {token: probabilities[token] / mass for token in kept}
    entropy = -sum(share * np.log(share) for share in shares.values())
    rewards = {t: step_reward(scored, t, context, entropy, statistics, config.reward) for t in kept}
    components = [sum(shares[t] * rewards[t].components[name] for t in kept) for name in REWARD_COMPONENTS]
    return sum(shares[t] * rewards[t].total for t in kept), components


def test_the_table_equals_a_computation_token_by_token() -> None:
    model, corpus, config = toy_model(), toy_corpus(), toy_config(headroom=HEADROOM)
    statistics = ngram_statistics(corpus, config, VOCAB)
    documents, positions = headroom_documents(model, corpus, config), headroom_positions(config)
    assert len(documents) == 6 and positions == [5, 7, 10]
    table = reward_table(model, documents, positions, config, statistics)
    assert table.reward.shape == (18, 21)
    for row in (0, 7, 17):
        context = list(documents[row // 3][: positions[row % 3]])
        assert table.document[row] == row // 3
        with torch.no_grad():
            hidden = model.hidden_states(torch.tensor([context]))[0, -1]
            logits = model.project(hidden)
        for index, m in enumerate(CONSTANTS):
            total, components = expected_reward(logits, context, m, config, statistics)
            assert table.reward[row, index] == pytest.approx(total, abs=2e-5), (row, m)
            assert table.components[row, index] == pytest.approx(components, abs=2e-5), (row, m)
        seen = build_observation(context, logits, hidden, step=len(context) - 5, episode_length=6)
        assert table.observation[row] == pytest.approx(seen.numpy(), abs=1e-5)
        assert table.repeats[row] == (int(logits.argmax()) in context)


def planted(gain: float, noise: float, *, visible: bool = True, documents: int = 80, each: int = 10) -> RewardTable:
    """Return a table in which m = 0.2 is best for low and m = 0.8 for high entropy, by `gain` over the other one."""
    random = np.random.default_rng(1)
    C = documents * each
    entropy = random.uniform(0, 6, C)
    truth = entropy > 3 if visible else random.random(C) > 0.5
    reward = 0.1 + np.zeros((C, 21))
    reward[~truth, 4] += gain
    reward[truth, 16] += gain
    reward += noise * random.normal(size=reward.shape)
    observation = random.normal(size=(C, 64)).astype(np.float32)
    observation[:, 1] = entropy / 10
    components = np.repeat(reward[..., None], 5, axis=2)
    document = np.repeat(np.arange(documents), each)
    return RewardTable(reward, components, observation, entropy, random.random(C) > 0.5, document)


def test_a_planted_gain_is_found_with_an_interval_that_contains_it() -> None:
    found = summarise_table(planted(0.05, 0.001), toy_config())
    assert found["headroom"]
    # A constant is right for half of the contexts, so a policy of the entropy gains half of the planted difference.
    for name in ("entropy_bins", "entropy_and_repetition_bins", "supervised_fit"):
        gain = found["policies"][name]["gain"]
        assert gain["mean"] == pytest.approx(0.025, abs=0.004), name
        assert gain["ci_low"] < gain["mean"] < gain["ci_high"] < found["policies"]["oracle"]["gain"]["mean"] + 0.01
    assert found["verdict"].startswith("There is headroom:") and "Train a controller" in found["advice"]


@pytest.mark.parametrize(
    ("table", "verdict", "advice"),
    [
        (planted(0.0, 1e-5), "There is no headroom:", "widen the ranges"),
        (planted(0.05, 1e-4, visible=False), "No visible headroom:", "Change the observation"),
        (planted(0.004, 1e-4), "There is little headroom:", "hardly beat"),
    ],
)
def test_where_there_is_no_headroom_the_result_names_what_to_change(
    table: RewardTable, verdict: str, advice: str
) -> None:
    if "little" in verdict:  # only the oracle gains enough
        table.reward[np.arange(len(table.reward)), np.random.default_rng(2).integers(0, 21, len(table.reward))] += 0.01
    found = summarise_table(table, toy_config())
    assert found["verdict"].startswith(verdict) and advice in found["advice"] and not found["headroom"]


def test_noise_gives_no_gain_on_other_documents() -> None:
    """Policies fitted and evaluated on the same noise would gain; on other documents they must not."""
    found = summarise_table(planted(0.0, 0.05), toy_config())
    for name in ("entropy_bins", "entropy_and_repetition_bins", "supervised_fit"):
        assert abs(found["policies"][name]["gain"]["mean"]) < 0.006, name
    assert found["policies"]["oracle"]["gain"]["mean"] > 0.08
    assert not found["headroom"]


def test_the_fit_uses_more_than_the_entropy() -> None:
    table = planted(0.05, 0.001, visible=False)
    best = np.where(table.reward[:, 16] > table.reward[:, 4], 16, 4)
    table.observation[:, 20] = np.where(best == 16, 1.0, -1.0)
    half = table.document % 2 == 0
    choice = supervised_fit(table.rows(half), table.rows(~half))
    assert value_of(table.rows(~half), choice).mean() == pytest.approx(0.15, abs=0.005)
    assert set(POLICIES) == {"entropy_bins", "entropy_and_repetition_bins", "supervised_fit", "oracle"}


def test_a_job_writes_the_same_result_every_time_and_obeys_a_stop(tmp_path: Path) -> None:
    model, corpus, config = toy_model(), toy_corpus(), toy_config(headroom=HEADROOM)
    hooks = Listener()
    assert run_headroom_job(config, model, corpus, tmp_path, hooks) is Outcome.COMPLETED
    stored = json.loads((tmp_path / "headroom_results.json").read_text())
    assert stored == measure_headroom(config, toy_model(), toy_corpus())
    assert stored["conditions"]["contexts"] == 18 and len(stored["rewards"]) == 21
    assert hooks.artifacts == ["headroom_results.json"] and hooks.progress[-1] == (18, 18)
    stopped = Listener(StopRequest.STOP, 2)
    assert run_headroom_job(config, model, corpus, tmp_path / "other", stopped) is Outcome.STOPPED
    assert not (tmp_path / "other").exists()


def test_too_long_episodes_and_too_few_documents_are_named() -> None:
    with pytest.raises(ConfigError, match=r"lower episode\.max_length"):
        measure_headroom(toy_config(episode={"max_length": 40}), toy_model(), toy_corpus())
    with pytest.raises(DataError, match="the headroom needs 4"):
        run_headroom_job(
            toy_config(headroom=HEADROOM), toy_model(), toy_corpus(documents=2), Path("/nowhere"), NullHooks()
        )
