"""The ablation evaluates its policies on the same prompts and seeds, with correct intervals and a correct verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import REWARD_COMPONENTS
from common.controller import GatingPolicy
from common.rl import NgramStatistics, run_ablation, run_ablation_job
from common.rl.ablation import play_episodes
from common.rl.comparison import QUANTITIES, compare_episodes, mean_interval, verdict
from common.rl.prompts import (
    ablation_prompts,
    development_prompts,
    evaluation_prompts,
    ngram_statistics,
    training_prompts,
)
from common.training.hooks import NullHooks, Outcome
from tests.unit.common.rl.toys import END, VOCAB, toy_config, toy_corpus, toy_model

torch.set_num_threads(1)


def _fixed(value: float) -> Any:
    return lambda seen, _: torch.full((seen.shape[0], 1), value)


def test_equal_policies_get_equal_episodes_in_any_batch() -> None:
    model, config = toy_model(), toy_config()
    prompts = ablation_prompts(toy_corpus(), config)
    statistics = NgramStatistics.from_sequences([[1, 2, 3]], VOCAB)
    pair, modulation, _ = play_episodes(
        model, [_fixed(0.3), _fixed(0.3)], prompts, config, statistics, end_token=END, seed=3
    )
    assert np.unique(modulation[np.isfinite(modulation)]) == pytest.approx([0.3])
    np.testing.assert_allclose(pair[0], pair[1], atol=1e-6)
    alone = play_episodes(model, [_fixed(0.3)], prompts[2:3], config, statistics, end_token=END, seed=5).values
    np.testing.assert_allclose(alone[0, 0], pair[0, 2], atol=1e-5, err_msg="prompt i has seed + i")
    other = play_episodes(model, [_fixed(0.9)], prompts, config, statistics, end_token=END, seed=3).values
    assert np.abs(other[0] - pair[0]).max() > 0.05


def test_an_episode_counts_its_mean_per_token_up_to_its_end() -> None:
    model, config = toy_model(), toy_config()
    with torch.no_grad():
        model.output_projection.bias[END] = 4.0
    prompts = ablation_prompts(toy_corpus(), toy_config(ablation={"prompts": 40}))
    episodes = play_episodes(model, [_fixed(0.5)], prompts, config, None, end_token=END, seed=0)
    found = episodes.values[0]
    for tokens in (episodes.modulation, episodes.entropy):
        assert (np.isfinite(tokens[0]).sum(1) == found[:, QUANTITIES.index("length")]).all()
    lengths = found[:, QUANTITIES.index("length")]
    assert {1, 6} <= set(lengths.tolist())
    np.testing.assert_allclose(found[:, QUANTITIES.index("modulation")], 0.5, atol=1e-6)
    weights = [0.35, 0.15, 0.15, 0.20, 0.15]
    parts = found[:, [QUANTITIES.index(name) for name in REWARD_COMPONENTS]]
    np.testing.assert_allclose(found[:, 0], parts @ weights, atol=1e-5)
    assert (found[:, QUANTITIES.index("coherence")] == 0.5).all(), "no statistics were given"


def test_the_interval_covers_the_mean_as_often_as_its_level_states() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        low, high = mean_interval(random.normal(1.0, 2.0, size=60), 300, seed=trial)
        hits += low <= 1.0 <= high
    assert 0.90 <= hits / 300 <= 0.98
    sample = random.normal(size=400)
    low, high = mean_interval(sample, 4000, seed=1)
    error = 1.96 * sample.std(ddof=1) / 20
    assert (low, high) == pytest.approx((sample.mean() - error, sample.mean() + error), abs=0.012)


def _results(gain: float, noise: float) -> dict[str, Any]:
    random = np.random.default_rng(0)
    base = random.normal(size=(50, len(QUANTITIES)))
    learned = base + gain + noise * random.normal(size=base.shape)
    prompts = [[i] for i in range(50)]
    tables = {"learned": learned, "random": base, "fixed": base}
    return compare_episodes(tables, prompts, toy_config(), prompt_source="a test")


def test_the_verdict_follows_the_interval_of_the_difference() -> None:
    won = _results(0.1, 0.05)["paired"]["learned_minus_fixed"]
    assert won["total"]["mean"] == pytest.approx(0.1, abs=0.03)
    assert won["verdict"].startswith("The learned controller beat fixed (+0.")
    lost = _results(-0.1, 0.05)
    assert "did worse than fixed" in lost["conclusion"]
    even = _results(0.0, 1.0)["paired"]["learned_minus_fixed"]
    assert even["total"]["ci_low"] < 0 < even["total"]["ci_high"]
    assert "did not beat fixed: the interval of the difference includes 0" in even["verdict"]


def test_an_interval_that_touches_zero_shows_no_difference() -> None:
    assert "did not beat" in verdict({"mean": 0.1, "std": 1.0, "ci_low": 0.0, "ci_high": 0.2}, "fixed")


def test_pairing_makes_the_interval_narrower() -> None:
    results = _results(0.1, 0.05)
    paired = results["paired"]["learned_minus_fixed"]["total"]
    alone = results["policies"]["learned"]["total"]
    assert paired["ci_high"] - paired["ci_low"] < 0.2 * (alone["ci_high"] - alone["ci_low"])


def test_repeated_prompts_are_averaged_first() -> None:
    values = np.arange(4 * len(QUANTITIES), dtype=float).reshape(4, -1)
    results = compare_episodes(
        {"learned": values, "fixed": values * 0}, [[1], [2], [1], [2]], toy_config(), prompt_source="a test"
    )
    assert results["conditions"]["different_prompts"] == 2
    assert results["policies"]["learned"]["total"]["mean"] == pytest.approx(values[:, 0].mean())
    expected = np.array([(values[0, 0] + values[2, 0]) / 2, (values[1, 0] + values[3, 0]) / 2]).std(ddof=1)
    assert results["policies"]["learned"]["total"]["std"] == pytest.approx(expected)


def test_the_file_holds_every_policy_component_and_condition(tmp_path: Path) -> None:
    policy = GatingPolicy()
    corpus, config = toy_corpus(), toy_config()
    outcome = run_ablation_job(config, toy_model(), policy, corpus, tmp_path, NullHooks(), end_token=END)
    assert outcome is Outcome.COMPLETED
    stored = json.loads((tmp_path / "ablation_results.json").read_text())
    assert stored == run_ablation(config, toy_model(), policy, corpus, end_token=END)
    assert set(stored["policies"]) == {"learned", "best_constant", "random", "fixed"}
    assert set(stored["policies"]["fixed"]["components"]) == set(REWARD_COMPONENTS)
    assert set(stored["policies"]["fixed"]["total"]) == {"mean", "std", "ci_low", "ci_high"}
    assert set(stored["paired"]) == {f"learned_minus_{name}" for name in ("best_constant", "random", "fixed")}
    assert stored["policies"]["fixed"]["modulation"]["mean"] == pytest.approx(0.5)
    assert stored["policies"]["random"]["modulation"]["mean"] == pytest.approx(0.5, abs=0.15)
    assert stored["aliases"] == {"neutral_gating": "fixed"}
    # A policy with new weights is a constant near 0.5, and the conclusion states it.
    assert stored["behaviour"]["constant"] and stored["behaviour"]["mean"] == pytest.approx(0.5, abs=0.02)
    assert stored["behaviour"]["verdict"] in stored["conclusion"]


def test_the_best_constant_is_the_best_of_the_grid_on_prompts_that_the_comparison_does_not_use() -> None:
    model, corpus, config = toy_model(), toy_corpus(), toy_config(ablation={"development_prompts": 9})
    results = run_ablation(config, model, GatingPolicy(), corpus, end_token=END)
    development, test = development_prompts(corpus, config), ablation_prompts(corpus, config)
    assert len(development) == 9 and not {tuple(p) for p in development} & {tuple(p) for p in test}
    statistics = ngram_statistics(corpus, config, VOCAB)
    options = {"end_token": END, "seed": config.ablation.seed}
    grid = results["best_constant"]["grid"]
    assert [point["modulation"] for point in grid] == pytest.approx(np.arange(21) / 20)
    alone = [  # each constant by itself, in batches of other sizes
        play_episodes(model, [_fixed(point["modulation"])], development, config, statistics, **options).values[0, :, 0]
        for point in grid
    ]
    assert [point["reward"] for point in grid] == pytest.approx([rewards.mean() for rewards in alone], abs=1e-5)
    best = results["best_constant"]["modulation"]
    assert best == grid[int(np.argmax([rewards.mean() for rewards in alone]))]["modulation"]
    reward = play_episodes(model, [_fixed(best)], test, config, statistics, **options).values[0, :, 0]
    assert results["policies"]["best_constant"]["total"]["mean"] == pytest.approx(reward.mean(), abs=1e-5)
    assert f"the best constant m = {best:g}" in results["paired"]["learned_minus_best_constant"]["verdict"]


def test_prompts_of_training_evaluation_and_ablation_are_disjoint_beginnings() -> None:
    corpus, config = toy_corpus(), toy_config(ablation={"prompts": 20})
    sets = [training_prompts(corpus, config), evaluation_prompts(corpus, config), ablation_prompts(corpus, config)]
    texts = [{tuple(prompt) for prompt in prompts} for prompts in sets]
    assert not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    for prompts, split in zip(sets, ("train", "validation", "validation"), strict=True):
        tokens, starts = corpus.tokens(split), corpus.documents(split)
        beginnings = {tuple(tokens[a : a + n].tolist()) for a in starts.tolist() for n in range(2, 6)}
        assert {tuple(prompt) for prompt in prompts} <= beginnings


def test_noise_reaches_the_random_policy() -> None:
    model, config = toy_model(), toy_config()
    noises: list[Tensor] = []

    def listen(seen: Tensor, noise: Tensor) -> Tensor:
        noises.append(noise)
        return noise[:, None]

    play_episodes(model, [listen], [[1, 2], [3, 4]], config, None, end_token=None, seed=11)
    expected = torch.rand(2, 6, generator=torch.Generator().manual_seed(12))[1]
    torch.testing.assert_close(torch.stack(noises)[:, 1], expected)
