"""Controller training from a language model's checkpoint to a policy and its ablation.

One iteration: rollout; advantages; PPO epochs with the entropy coefficient and learning rate of its start; report. The
schedules run over the share of transitions done, or of `max_seconds` where that is larger. Run it with
`tidal train rl --config … --out …`. Leaves out: homeostasis, constrained mode and gate training as options; their maths
is in `common.rl.schedules`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common.checkpoint import load_model
from common.config import DataConfig, RLConfig
from common.controller import GatingPolicy
from common.data import Corpus
from common.errors import DivergedError, require_finite
from common.metrics import names
from common.model import TransformerLM
from common.rl import export, schedules
from common.rl.ablation import compared_policies, end_of_text, play_episodes, run_ablation_job
from common.rl.comparison import QUANTITIES
from common.rl.ppo import explained_variance, ppo_update
from common.rl.preparation import PreparedTraining, prepare_training, resume_from_checkpoint
from common.rl.rewards import COMPONENTS, reward_weights
from common.rl.rollout import Rollout, collect_rollout
from common.training.device import select_device
from common.training.disk_wait import StoppedWaiting, wait_at_boundary, write_when_disk_has_space
from common.training.divergence import withdraw_and_explain
from common.training.final_checkpoint import write_final_checkpoint
from common.training.hooks import Outcome, StopRequest, TrainingHooks, outcome_of
from common.training.loading import StoppedWhileLoading, load_corpus
from common.training.starting_point import has_checkpoints
from tidal_client.vocabulary import GatingMode

EVALUATION_SEED = 9_000_000
"""Noise of the evaluation on the way; the same at every evaluation."""


def train_controller(
    config: RLConfig,
    lm_checkpoint: Path,
    directory: Path,
    hooks: TrainingHooks,
    *,
    data: DataConfig,
    data_dir: Path,
    resume: bool = True,
) -> Outcome:
    """Train a policy that steers the language model in `lm_checkpoint`; everything it makes goes to `directory`.

    Goes on from the newest whole checkpoint below `directory` when there is one. Ends with `rl_checkpoint_final.pth`,
    `rl_metrics/rl_training_metrics.json` and `ablation_results.json`, unless a stop wish comes first; one that comes
    while the corpus is tokenised leaves nothing. Raises CheckpointError, DataError, ConfigError, StorageError, and
    DivergedError, which says where to resume, when a loss, a gradient norm, a reward or the policy is not finite.
    """
    device = select_compute_device(config)
    try:
        corpus = load_corpus(data, data_dir, hooks, may_pause=resume and has_checkpoints(directory))
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    model = load_model(lm_checkpoint, device=device)
    return train_policy(config, model, corpus, directory, hooks, end_token=end_of_text(model), resume=resume)


def select_compute_device(config: RLConfig) -> torch.device:
    """Set the CPU threads of the process and choose the device. Raises ConfigError when there is no such device."""
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    return select_device(config.device)


def train_policy(
    config: RLConfig,
    model: TransformerLM,
    corpus: Corpus,
    directory: Path,
    hooks: TrainingHooks,
    *,
    end_token: int | None,
    resume: bool = True,
) -> Outcome:
    """`train_controller` with model and corpus at hand."""
    prepared = prepare_training(config, model, corpus, directory, hooks, end_token=end_token)
    run, state = _Run(config, model, hooks, prepared, end_token), prepared.state
    if resume:
        resume_from_checkpoint(state, hooks)
    if not state.counters.finished:
        hooks.phase("training")
        hooks.offer_checkpoint(state.write_final_and_block)
        try:
            request = run.iterate()
            if request in (None, StopRequest.COMPLETE):
                state.finish()
            hooks.wait_while_suspended()
            hooks.phase("checkpoint")
            request = write_final_checkpoint(state, hooks, request)
        except DivergedError as error:
            raise _diverged(run, error) from None
        finally:
            hooks.offer_checkpoint(None)
            state.writer.close()
        if request is not None and request is not StopRequest.COMPLETE:
            return outcome_of(request)
    hooks.wait_while_suspended()
    try:
        policy = write_when_disk_has_space(hooks, partial(export.write_policy, state, directory))
        hooks.artifact_saved(policy.name, "policy")
        hooks.wait_while_suspended()
        write_when_disk_has_space(hooks, partial(export.write_points, state.points, directory))
    except StoppedWaiting as stop:
        return outcome_of(stop.request)
    return run_ablation_job(
        config, model, state.policy, corpus, directory, hooks, statistics=prepared.statistics, end_token=end_token
    )


def _diverged(run: _Run, error: DivergedError) -> DivergedError:
    """End a training whose numbers are no longer finite; the error to raise."""
    state, hooks = run.state, run.hooks
    hooks.offer_checkpoint(None)
    state.forbid_checkpoints()
    state.writer.close()
    iteration = state.counters.iteration
    if not error.quantity.startswith("the ") or error.quantity in _METRIC_OF:
        metric = _METRIC_OF.get(error.quantity, error.quantity)
        hooks.report_metrics("rl-metrics", state.counters.step + run.transitions, {metric: error.value})
    # An iteration that diverged after its first update may be done again, with a lower rate. One that diverged before
    # would end the same whatever the rate, so the checkpoint it began from is of no use.
    updated = updates_of(state.optimizer) > run.updates_before
    return withdraw_and_explain(
        error,
        state.writer.manager,
        hooks,
        number=iteration + 1 if updated else iteration,
        when=f"in iteration {iteration + 1}",
        change="lower ppo.learning_rate",
    )


def updates_of(optimizer: torch.optim.Optimizer) -> int:
    """Steps that `optimizer` has taken, its whole life long."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


_METRIC_OF = {"the PPO loss": names.POLICY_LOSS, "the gradient norm": names.RL_GRADIENT_NORM}
"""By `DivergedError.quantity`; the archive shows where the training ended."""


def _check_finite(point: Mapping[str, float]) -> None:
    for name, value in point.items():
        require_finite(name, value)


@torch.no_grad()
def _check_policy(policy: GatingPolicy, observation: Tensor) -> None:
    """DivergedError unless the policy after its updates answers what it was trained on with finite numbers."""
    output = policy(observation)
    parts = [part for part in output if part is not None]
    if not bool(torch.stack([part.isfinite().all() for part in parts]).all()):
        raise DivergedError("the policy answers with NaN or infinity after its update", quantity="the policy")


class _Run:
    """The loop over iterations of one attempt."""

    def __init__(
        self,
        config: RLConfig,
        model: TransformerLM,
        hooks: TrainingHooks,
        prepared: PreparedTraining,
        end_token: int | None,
    ) -> None:
        self.config, self.model, self.hooks, self.state = config, model, hooks, prepared.state
        self.statistics, self.evaluation, self.end_token = prepared.statistics, prepared.evaluation, end_token
        self.weights = reward_weights(config.reward)
        self.transitions = 0
        """Of the iteration under way."""
        self.updates_before = 0
        """Steps of the optimiser before the iteration under way."""
        self.request: StopRequest | None = None
        self.started = self.saved = time.monotonic()

    def iterate(self) -> StopRequest | None:
        """Iterations until the transitions or seconds are used up (None) or somebody wants a stop."""
        ppo, counters = self.config.ppo, self.state.counters
        while counters.step < ppo.total_steps:
            wait_at_boundary(self.hooks, self.state)
            self.started = time.monotonic()
            steps = min(ppo.rollout_steps, -(-(ppo.total_steps - counters.step) // ppo.num_envs))
            self.transitions, self.updates_before = steps * ppo.num_envs, updates_of(self.state.optimizer)
            rollout = collect_rollout(
                self.state.environment,
                self.state.policy,
                steps,
                weights=self.weights,
                generator=self.state.action_random,
                keep_going=self._keep_going,
            )
            if rollout is None:
                return self.request
            point = self.state.take_iteration(partial(self._update, rollout), self.transitions)
            self.hooks.report_metrics("rl-metrics", counters.step, point)
            self.started = time.monotonic()
            self.hooks.report_progress(counters.step, ppo.total_steps, min(1.0, self._share_of_time()))
            self._save_when_due(point.get(names.EVALUATION_REWARD))
        return None

    def _keep_going(self, t: int) -> bool:
        ppo, counters = self.config.ppo, self.state.counters
        self.hooks.wait_while_suspended()
        step = min(counters.step + t * ppo.num_envs, ppo.total_steps)
        self.hooks.report_progress(step, ppo.total_steps, min(1.0, self._share_of_time()))
        self.request = self.hooks.requested_stop()
        # At least one iteration, so that there is a policy that learned something.
        return self.request is None and (counters.iteration == 0 or self._share_of_time() < 1)

    def _share_of_time(self) -> float:
        """Of `max_seconds`; `counters.seconds` holds the iterations that are finished."""
        if self.config.max_seconds is None:
            return 0.0
        return (self.state.counters.seconds + time.monotonic() - self.started) / self.config.max_seconds

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config, ppo, state, counters = self.config, self.config.ppo, self.state, self.state.counters
        progress = counters.step / ppo.total_steps
        if config.max_seconds is not None:
            progress = max(progress, counters.seconds / config.max_seconds)
        entropy_coef = schedules.linear(ppo.entropy_coef, ppo.entropy_coef_final, progress)
        learning_rate = schedules.decayed_learning_rate(ppo.learning_rate, progress)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        step_reward = require_finite(names.STEP_REWARD, float(rollout.reward.mean()))
        batch, values, returns = rollout.batch(gamma=ppo.gamma, gae_lambda=ppo.gae_lambda)
        variance = float(explained_variance(values, returns))
        losses = ppo_update(
            state.policy,
            state.optimizer,
            batch,
            epochs=ppo.epochs,
            minibatch_size=ppo.minibatch_size or 32 * ppo.num_envs,
            clip_range=ppo.clip_range,
            value_coef=ppo.value_coef,
            entropy_coef=entropy_coef,
            max_grad_norm=ppo.max_grad_norm,
            generator=state.order_random,
        )
        counters.episode.update(rollout.reward, rollout.terminated | rollout.truncated)
        components = rollout.components.mean((0, 1))
        diversity = rollout.components[..., COMPONENTS.index("diversity")]
        point = {
            names.STEP_REWARD: step_reward,
            names.POLICY_LOSS: losses["policy_loss"],
            names.VALUE_LOSS: losses["value_loss"],
            names.COST_VALUE_LOSS: losses["cost_value_loss"],
            names.ENTROPY: losses["entropy"],
            names.ENTROPY_COEF: entropy_coef,
            names.MODULATION_MEAN: float(rollout.action.mean()),
            names.MODULATION_STD: float(rollout.action.std(correction=0)),
            names.EXPLAINED_VARIANCE: variance,
            **{names.REWARD_PREFIX + name: x for name, x in zip(COMPONENTS, components.tolist(), strict=True)},
            names.DIVERSITY_WEIGHT: self.weights[COMPONENTS.index("diversity")],
            names.LAGRANGE_MULTIPLIER: 0.0,
            names.COST: float(schedules.hinge_cost(diversity).mean()),
            names.APPROX_KL: losses["approx_kl"],
            names.CLIP_FRACTION: losses["clip_fraction"],
            names.RL_GRADIENT_NORM: losses["gradient_norm"],
            names.RL_LEARNING_RATE: learning_rate,
            names.EPISODES: float(counters.episode.finished),
        }
        if counters.episode.value is not None:
            point[names.EPISODE_REWARD] = counters.episode.value
        _check_finite(point)
        _check_policy(state.policy, batch.observation)
        point[names.RL_STEPS_PER_SECOND] = rollout.reward.numel() / (time.monotonic() - self.started)
        if (counters.iteration + 1) % config.checkpoint_every_iterations == 0:
            point |= self._evaluate()
            _check_finite(point)
            reward = point[names.EVALUATION_REWARD]
            if counters.best_evaluation is None or reward > counters.best_evaluation:
                counters.best_evaluation = reward
        counters.seconds += time.monotonic() - self.started
        return point

    def _evaluate(self) -> dict[str, float]:
        """Reward of the deterministic policy on prompts that neither training nor ablation uses.

        A phase of its own: it lasts as long as many steps and tells nothing meanwhile.
        """
        self.hooks.phase("evaluation")
        learned = compared_policies(self.state.policy, self.config.ablation.fixed_modulation)[GatingMode.LEARNED]
        played = play_episodes(
            self.model,
            [learned],
            self.evaluation,
            self.config,
            self.statistics,
            end_token=self.end_token,
            seed=EVALUATION_SEED,
        )
        self.hooks.phase("training")
        means = dict(zip(QUANTITIES, played[0].mean(axis=0).tolist(), strict=True))
        return {names.EVALUATION_REWARD: means["total"], names.EVALUATION_MODULATION: means["modulation"]}

    def _save_when_due(self, evaluation: float | None) -> None:
        config, counters = self.config, self.state.counters
        intervals = (config.checkpoint_every_iterations, config.checkpoint_keep_every_iterations)
        due = any(interval is not None and counters.iteration % interval == 0 for interval in intervals)
        late = time.monotonic() - self.saved >= config.checkpoint_every_seconds
        if due or late or self.state.writer.retry_is_due:
            is_best = evaluation is not None and evaluation == counters.best_evaluation
            self.state.save_in_background(evaluation=evaluation if is_best else None)
            self.saved = time.monotonic()
