"""Compares a trained controller with constant and random modulation on prompts that training has not seen.

First, 21 constants from 0 to 1 decode development prompts, and the best of them is chosen. Then the learned policy
(deterministic), the best constant, random modulation (uniform per token) and fixed modulation decode other prompts with
the same random numbers, so that their episodes can be compared pairwise. The value of an episode is its mean reward per
token. `run_ablation` returns the results; `run_ablation_job` writes them and reports to a job. The statistics are in
`common.rl.comparison` and `common.rl.behaviour`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config import RLConfig
from common.controller import GatingPolicy, pad
from common.controller.observation import ENTROPY_SCALE
from common.data import Corpus
from common.errors import require_finite
from common.model import TransformerLM
from common.rl import export
from common.rl.behaviour import describe_modulation
from common.rl.comparison import QUANTITIES, compare_episodes
from common.rl.decoder import Decoder
from common.rl.prompts import ablation_prompts, development_prompts, ngram_statistics
from common.rl.rewards import reward_weights
from common.rl.statistics import NgramStatistics
from common.training.disk_wait import EARLY_STOP_REQUESTS, StoppedWaiting, wait_for_disk, write_when_disk_has_space
from common.training.hooks import Outcome, StopRequest, TrainingHooks, outcome_of
from tidal_client.vocabulary import GatingMode

ModulationChoice = Callable[[Tensor, Tensor], Tensor]
"""A policy: returns modulations (n, 1) for observations (n, 64) and uniform noise (n,)."""

CONSTANTS = tuple(i / 20 for i in range(21))
"""The constant modulations of which the best is chosen."""
BEST_CONSTANT = "best_constant"
"""Name of the best constant in the results."""
SEQUENCES_AT_ONCE = 96
"""Largest number of sequences (prompts times policies) in one batch."""


class Episodes(NamedTuple):
    """One episode of each of P policies with each of n prompts.

    `values` (P, n, 8) are the means per token of `QUANTITIES`. `modulation` and `entropy` (P, n, T) hold m and the
    entropy in nats of the model's next-token distribution for each token, and NaN after the end of an episode.
    """

    values: NDArray[np.float64]
    modulation: NDArray[np.float64]
    entropy: NDArray[np.float64]


class _EarlyStop(Exception):
    """Raised when a stop request arrives during the ablation."""

    def __init__(self, request: StopRequest) -> None:
        super().__init__(request.value)
        self.request = request


def run_ablation(
    config: RLConfig,
    model: TransformerLM,
    policy: GatingPolicy,
    corpus: Corpus,
    *,
    statistics: NgramStatistics | None = None,
    end_token: int | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare `policy` with constant and random modulation on validation prompts; return the content of the file.

    `statistics` are by default counted from the corpus; `end_token` is by default the end-of-text token.
    `on_step(number of sequences)` is called after each step of a batch and may raise to abort. Raises ConfigError if
    episodes do not fit into the context, DataError if no document is usable, DivergedError if a reward is not finite.
    """
    if statistics is None:
        statistics = ngram_statistics(corpus, config, model.config.vocab_size)
    play = partial(
        play_episodes,
        model,
        config=config,
        statistics=statistics,
        end_token=end_of_text(model) if end_token is None else end_token,
        seed=config.ablation.seed,
        on_step=on_step,
    )
    tried = play([constant(m) for m in CONSTANTS], development_prompts(corpus, config)).values[:, :, 0].mean(axis=1)
    require_finite("the reward of a constant modulation in the ablation", float(tried.sum()))
    best = CONSTANTS[int(tried.argmax())]

    policies = compared_policies(policy.to(model.device).eval(), config.ablation.fixed_modulation)
    policies = {GatingMode.LEARNED: policies.pop(GatingMode.LEARNED), BEST_CONSTANT: constant(best), **policies}
    prompts = ablation_prompts(corpus, config)
    episodes = play(list(policies.values()), prompts)
    for name, values in zip(policies, episodes.values, strict=True):
        require_finite(f"the reward of the {name} policy in the ablation", float(values.sum()))
    results = compare_episodes(
        dict(zip(policies, episodes.values, strict=True)),
        prompts,
        config,
        prompt_source=f"validation documents of {corpus.description}",
        labels={BEST_CONSTANT: f"the best constant m = {best:g}"},
    )
    behaviour = describe_modulation(episodes.modulation[0], episodes.entropy[0])
    grid = [{"modulation": m, "reward": float(reward)} for m, reward in zip(CONSTANTS, tried, strict=True)]
    results["best_constant"] = {"modulation": best, "grid": grid}
    results["behaviour"] = behaviour
    results["conclusion"] = f"{results['conclusion']} {behaviour['verdict']}"
    results["conditions"]["development_prompts"] = config.ablation.development_prompts
    return results


def run_ablation_job(
    config: RLConfig,
    model: TransformerLM,
    policy: GatingPolicy,
    corpus: Corpus,
    directory: Path,
    hooks: TrainingHooks,
    *,
    statistics: NgramStatistics | None = None,
    end_token: int | None = None,
) -> Outcome:
    """Run the ablation, write `ablation_results.json` and report the file.

    Obeys pause, stop and drain between steps.
    """
    hooks.phase("ablation")

    def on_step(_: int) -> None:
        hooks.wait_while_suspended()
        wait_for_disk(hooks, obeyed=EARLY_STOP_REQUESTS)
        request = hooks.requested_stop()
        if request not in (None, StopRequest.COMPLETE):
            raise _EarlyStop(request)

    try:
        results = run_ablation(
            config, model, policy, corpus, statistics=statistics, end_token=end_token, on_step=on_step
        )
        hooks.wait_while_suspended()
        written = write_when_disk_has_space(hooks, partial(export.write_ablation_results, results, directory))
    except (_EarlyStop, StoppedWaiting) as stop:
        return outcome_of(stop.request)
    hooks.artifact_saved(written.name, "ablation")
    hooks.event("ablation", conclusion=results["conclusion"])
    return Outcome.COMPLETED


def end_of_text(model: TransformerLM) -> int | None:
    """Return the id of the end-of-text token, or None if the model's vocabulary is too small to contain it."""
    token = model.vocabulary.end_of_text_id
    return token if token < model.config.vocab_size else None


def compared_policies(policy: GatingPolicy, fixed_modulation: float) -> dict[str, ModulationChoice]:
    """Return the learned, random and fixed policy, keyed by their names in the results."""
    return {
        GatingMode.LEARNED: lambda observation, _: policy.act(observation, deterministic=True).action,
        GatingMode.RANDOM: lambda _, noise: noise[:, None],
        GatingMode.FIXED: constant(fixed_modulation),
    }


def constant(modulation: float) -> ModulationChoice:
    """Return the policy that always chooses `modulation`."""
    return lambda observation, _: torch.full((observation.shape[0], 1), modulation, device=observation.device)


@torch.no_grad()
def play_episodes(
    model: TransformerLM,
    policies: Sequence[ModulationChoice],
    prompts: Sequence[Sequence[int]],
    config: RLConfig,
    statistics: NgramStatistics | None,
    *,
    end_token: int | None,
    seed: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> Episodes:
    """Run one episode per prompt and policy.

    The random numbers of prompt i come from `seed + i`: for each token, one for sampling and one for the policy. They
    are the same for all policies and batch sizes. `on_step(number of sequences)` is called after each step of a batch
    and may raise to abort.
    """
    length = config.episode.max_length
    noise = torch.stack(
        [torch.rand(2, length, generator=torch.Generator().manual_seed(seed + i)) for i in range(len(prompts))]
    ).to(model.device)
    values = np.zeros((len(policies), len(prompts), len(QUANTITIES)))
    tokens = np.full((2, len(policies), len(prompts), length), np.nan)
    per_batch = max(SEQUENCES_AT_ONCE // len(policies), 1)
    for start in range(0, len(prompts), per_batch):
        batch = slice(start, min(start + per_batch, len(prompts)))
        sums, steps = _episodes(model, policies, prompts[batch], noise[batch], config, statistics, end_token, on_step)
        values[:, batch] = sums.view(len(policies), -1, len(QUANTITIES)).double().cpu().numpy()
        played = steps.view(-1, 2, len(policies), values[:, batch].shape[1]).double().cpu().numpy()
        tokens[:, :, batch, : len(played)] = np.moveaxis(played, 0, -1)
    values[:, :, :-1] /= values[:, :, -1:]
    return Episodes(values, *tokens)


def _episodes(
    model: TransformerLM,
    policies: Sequence[ModulationChoice],
    prompts: Sequence[Sequence[int]],
    noise: Tensor,
    config: RLConfig,
    statistics: NgramStatistics | None,
    end_token: int | None,
    on_step: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Return sums over the tokens of each episode, and values of each token.

    The sums of `QUANTITIES` are (policies × prompts, 8). The values are modulation and entropy (steps, 2, policies ×
    prompts); they are NaN after the end of an episode.
    """
    n = len(prompts)
    sequences = n * len(policies)
    decoder = Decoder(model, config, statistics, sequences, end_token=end_token)
    tokens, lengths = pad(prompts, device=model.device)
    decoder.start(tokens.repeat(len(policies), 1), lengths.repeat(len(policies)))
    weights = torch.tensor(reward_weights(config.reward), device=model.device)
    sums = torch.zeros(sequences, len(QUANTITIES), device=model.device)
    alive = torch.ones(sequences, dtype=torch.bool, device=model.device)
    previous = torch.zeros(sequences, 1, device=model.device)
    tokens_of_steps: list[Tensor] = []
    for t in range(config.episode.max_length):
        observation = decoder.observe(torch.full((sequences,), t, device=model.device), previous)
        parts = torch.chunk(observation, len(policies))
        action = torch.cat([policy(part, noise[:, 1, t]) for policy, part in zip(policies, parts, strict=True)])
        step = decoder.step(action, noise[:, 0, t].repeat(len(policies)))
        total = step.components @ weights
        values = torch.cat([total[:, None], step.components, action, torch.ones_like(action)], dim=1)
        sums += torch.where(alive[:, None], values, 0.0)
        shown = torch.stack((action[:, 0], observation[:, 1] * ENTROPY_SCALE))
        tokens_of_steps.append(torch.where(alive, shown, torch.nan))
        alive = alive & ~step.ended
        previous = action
        on_step(sequences)
        if model.device.type == "cpu" and not bool(alive.any()):
            break
    return sums, torch.stack(tokens_of_steps)
