"""Measures, before a controller is trained, how much any policy could gain over the best constant modulation.

`measure_headroom` computes the reward of 21 modulations for contexts from held-out documents, fits policies to one half
of the documents, and evaluates them on the other half, and the reverse. It reports the gain of each over the best
constant with an interval, and what to change where there is none. The command is `tidal analyze headroom CHECKPOINT`.
The gains are those of single steps: m also influences later tokens, which the table does not show.

Keys of the result:

modulations, rewards     the 21 modulations and their mean rewards
best_constant            modulation (best for all contexts), reward and its interval
policies.<name>          reward, gain over the best constant {mean, std, ci_low, ci_high}, and components, the weighted
                         gain in each component
headroom                 whether the gain of a fitted policy is certain and at least `ENOUGH` of the constant's reward
verdict, advice          a sentence about the headroom, and one about what to do
conditions               documents, contexts and settings
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.config import REWARD_COMPONENTS, RLConfig
from common.data import Corpus, document_prompts
from common.errors import ConfigError, DataError, require_finite
from common.files import write_atomic, write_json
from common.model import TransformerLM
from common.rl import headroom_policies as fitted
from common.rl.ablation import CONSTANTS
from common.rl.comparison import CONFIDENCE, interval_summary
from common.rl.prompts import ngram_statistics
from common.rl.reward_table import RewardTable, reward_table
from common.rl.rewards import reward_weights
from common.training.disk_wait import EARLY_STOP_REQUESTS, StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.hooks import Outcome, StopRequest, TrainingHooks, outcome_of

HEADROOM_FILE = "headroom_results.json"
ENOUGH = 0.05
"""Smallest gain worth a controller, as a share of the best constant's reward."""
POLICIES: Mapping[str, fitted.FittedPolicy] = {
    "entropy_bins": fitted.entropy_bins,
    "entropy_and_repetition_bins": fitted.entropy_and_repetition_bins,
    "supervised_fit": fitted.supervised_fit,
    "oracle": fitted.oracle,
}
"""{name in the results: policy}."""


class _EarlyStop(Exception):
    def __init__(self, request: StopRequest) -> None:
        super().__init__(request.value)
        self.request = request


def measure_headroom(
    config: RLConfig, model: TransformerLM, corpus: Corpus, *, on_contexts: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Return the headroom of `model` on validation documents, as described above.

    `on_contexts(number of finished contexts)` may raise to abort. Raises ConfigError if a document does not fit into
    the context, DataError if there are fewer than four suitable documents, DivergedError if a reward is not finite.
    """
    documents, positions = headroom_documents(model, corpus, config), headroom_positions(config)
    statistics = ngram_statistics(corpus, config, model.config.vocab_size)
    table = reward_table(model, documents, positions, config, statistics, on_contexts=on_contexts)
    require_finite("the reward of a modulation in the headroom", float(table.reward.sum()))
    return {
        **summarise_table(table, config),
        "conditions": {
            "documents": len(documents),
            "contexts": len(table.reward),
            "source": f"validation documents of {corpus.description}",
            "folds": 2,
            "seed": config.headroom.seed,
            "confidence": CONFIDENCE,
            "reward": "expected reward per token after human text",
            "reward_weights": dict(zip(REWARD_COMPONENTS, reward_weights(config.reward), strict=True)),
        },
    }


def headroom_documents(model: TransformerLM, corpus: Corpus, config: RLConfig) -> list[list[int]]:
    """Return `headroom.documents` different beginnings of validation documents, fewer if the corpus is too small."""
    length = config.episode.prompt_max_tokens + config.episode.max_length
    if length > model.config.context_length:
        raise ConfigError(
            f"episode.prompt_max_tokens + episode.max_length is {length}, more than the model's context of "
            f"{model.config.context_length} tokens; lower episode.max_length"
        )
    generator = torch.Generator().manual_seed(config.headroom.seed)
    found = document_prompts(corpus, "validation", config.headroom.documents, length, length, generator)
    different = [list(document) for document in dict.fromkeys(map(tuple, found))]
    if len(different) < 4:
        raise DataError(
            f"only {len(different)} validation documents of {corpus.description} have {length} tokens, but the "
            "headroom needs 4; use a larger corpus, or lower episode.max_length"
        )
    return different


def headroom_positions(config: RLConfig) -> list[int]:
    """Return the lengths of the contexts of each document: evenly spaced over the steps of an episode."""
    first, steps = config.episode.prompt_max_tokens, config.episode.max_length
    spaced = np.linspace(0, steps - 1, min(config.headroom.positions, steps)).round().astype(int)
    return [first + int(step) for step in spaced]


def summarise_table(table: RewardTable, config: RLConfig) -> dict[str, Any]:
    """Return the part of the result that follows from the table: constants, policies, verdict and advice."""
    h = config.headroom
    weights = np.array(reward_weights(config.reward))
    order = np.random.default_rng(h.seed).permutation(table.document.max() + 1)
    half = np.isin(table.document, order[: len(order) // 2])
    everything = np.arange(len(table.reward))

    def cross_fitted(policy: fitted.FittedPolicy) -> fitted.Choice:
        choice = np.zeros(len(everything), dtype=np.int64)
        for test in (half, ~half):
            choice[test] = policy(table.rows(~test), table.rows(test))
        return choice

    def interval(values: Any) -> dict[str, float]:
        of_documents = np.array([values[table.document == number].mean() for number in np.unique(table.document)])
        return interval_summary(of_documents, h.bootstrap_resamples, h.seed)

    constant = cross_fitted(fitted.best_constant)
    baseline, baseline_components = fitted.value_of(table, constant), table.components[everything, constant]
    policies = {}
    for name, policy in POLICIES.items():
        choice = cross_fitted(policy)
        value = fitted.value_of(table, choice)
        components = (table.components[everything, choice] - baseline_components).mean(axis=0) * weights
        policies[name] = {
            "reward": interval(value),
            "gain": interval(value - baseline),
            "components": dict(zip(REWARD_COMPONENTS, components.tolist(), strict=True)),
            "modulation_std": float(np.array(CONSTANTS)[choice].std()),
        }
    rewards = table.reward.mean(axis=0)
    best = {"modulation": CONSTANTS[int(rewards.argmax())], "reward": interval(baseline)}
    return {
        "modulations": list(CONSTANTS),
        "rewards": rewards.tolist(),
        "best_constant": best,
        "policies": policies,
        **conclusion(policies, best),
    }


def conclusion(policies: Mapping[str, Any], best: Mapping[str, Any]) -> dict[str, Any]:
    """Return `headroom`, `verdict` and `advice` for the gains of the policies over the best constant."""
    needed = ENOUGH * abs(best["reward"]["mean"])
    visible = {name: row["gain"] for name, row in policies.items() if name != "oracle"}
    name, gain = max(visible.items(), key=lambda item: item[1]["mean"])
    bound = policies["oracle"]["gain"]["mean"]
    over = f"over the best constant m = {best['modulation']:g} ({best['reward']['mean']:.4f} per token)"
    found = f"{gain['mean']:+.4f}, 95 % interval {gain['ci_low']:+.4f} to {gain['ci_high']:+.4f}"
    label = name.replace("_", " ")
    if gain["ci_low"] > 0 and gain["mean"] >= needed:
        largest = max(policies[name]["components"], key=policies[name]["components"].__getitem__)
        verdict = f"There is headroom: {label} gains {found} {over}, mostly in the component {largest}."
        advice = "Train a controller. If it does not gain as much, the training is at fault, not the task."
    elif bound < needed:
        verdict = f"There is no headroom: even the best m of each token gains only {bound:+.4f} {over}."
        advice = "Change the reward weights, or widen the ranges of `modulation`, so that m matters."
    elif gain["ci_low"] > 0:
        verdict = f"There is little headroom: {label} gains {found} {over}, less than {100 * ENOUGH:.0f} %."
        advice = "Change the reward or the ranges of `modulation`; a controller can hardly beat this constant."
    else:
        verdict = f"No visible headroom: no fitted policy surely gains {over}; {label} has {found}."
        advice = (
            f"The best m of each token would gain {bound:+.4f}, but the observation does not show which m that is. "
            "Change the observation or the reward, or measure more documents."
        )
    return {"headroom": bool(gain["ci_low"] > 0 and gain["mean"] >= needed), "verdict": verdict, "advice": advice}


def run_headroom_job(
    config: RLConfig, model: TransformerLM, corpus: Corpus, directory: Path, hooks: TrainingHooks
) -> Outcome:
    """Measure the headroom, write `headroom_results.json` and report the file. Obeys pause, stop and drain."""
    hooks.phase("headroom")
    total = config.headroom.documents * len(headroom_positions(config))

    def on_contexts(finished: int) -> None:
        hooks.wait_while_suspended()
        wait_for_disk(hooks, obeyed=EARLY_STOP_REQUESTS)
        hooks.report_progress(min(finished, total), total)
        request = hooks.requested_stop()
        if request not in (None, StopRequest.COMPLETE):
            raise _EarlyStop(request)

    try:
        results = measure_headroom(config, model, corpus, on_contexts=on_contexts)
        path = directory / HEADROOM_FILE
        write_when_disk_has_space(hooks, partial(write_atomic, path, partial(write_json, value=results)))
    except (_EarlyStop, StoppedWaiting) as stop:
        return outcome_of(stop.request)
    hooks.artifact_saved(HEADROOM_FILE, "headroom")
    hooks.event("headroom", conclusion=results["verdict"])
    hooks.report_progress(total, total)
    return Outcome.COMPLETED
