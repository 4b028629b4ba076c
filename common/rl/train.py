"""Trains a controller for a language model's checkpoint, writes the policy and runs the ablation.

An iteration collects a rollout, computes advantages, runs the PPO epochs, adapts the coefficients and reports metrics.
The learning rate and the linear entropy coefficient are constant within an iteration; they depend on the finished share
of the transitions or on the used share of `max_seconds`, whichever is larger. The order of the original project is
kept: diversity weight (for the next rollout), advantages, multiplier, epochs with the old entropy coefficient, entropy
coefficient. The command is `tidal train rl --config … --out …`. Gate training has a formula in `common.rl.schedules`,
but is not used here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common.checkpoint import load_model, load_vocabulary
from common.config import REWARD_COMPONENTS, DataConfig, RLConfig
from common.controller import GatingPolicy
from common.data import Corpus
from common.errors import DivergedError, require_finite
from common.metrics import names
from common.model import TransformerLM
from common.rl import export, schedules
from common.rl.ablation import compared_policies, end_of_text, play_episodes, run_ablation_job
from common.rl.comparison import QUANTITIES
from common.rl.controls import DIVERSITY
from common.rl.ppo import explained_variance, ppo_update
from common.rl.preparation import PreparedTraining, prepare_training, resume_from_checkpoint
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
"""Seed of the noise in the evaluations during training; every evaluation uses this seed."""


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
    """Train a policy that controls the modulation of the language model in `lm_checkpoint`; write to `directory`.

    With `resume`, training continues from the newest intact checkpoint below `directory`, if there is one. At the end,
    `rl_checkpoint_final.pth`, `rl_metrics/rl_training_metrics.json` and `ablation_results.json` are written, unless a
    stop request arrives first. A stop while the corpus is tokenised leaves no files.

    Raises CheckpointError, DataError, ConfigError and StorageError. Raises DivergedError, which names a checkpoint to
    resume, if a loss, a gradient norm, a reward or the policy is not finite.
    """
    device = select_compute_device(config)
    vocabulary, may_pause = load_vocabulary(lm_checkpoint), resume and has_checkpoints(directory)
    try:
        corpus = load_corpus(data, data_dir, hooks, vocabulary=vocabulary, may_pause=may_pause)
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    model = load_model(lm_checkpoint, device=device)
    return train_policy(config, model, corpus, directory, hooks, end_token=end_of_text(model), resume=resume)


def select_compute_device(config: RLConfig) -> torch.device:
    """Set the CPU threads of the process and return the device. Raises ConfigError if the device does not exist."""
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
    """Like `train_controller`, for a model and a corpus that are already loaded."""
    prepared = prepare_training(config, model, corpus, directory, hooks, end_token=end_token)
    run, state = _ControllerTraining(config, model, hooks, prepared, end_token), prepared.state
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


def _diverged(run: _ControllerTraining, error: DivergedError) -> DivergedError:
    """Report the divergence, withdraw the affected checkpoints, and return the error to raise."""
    state, hooks = run.state, run.hooks
    hooks.offer_checkpoint(None)
    state.forbid_checkpoints()
    state.writer.close()
    iteration = state.counters.iteration
    if not error.quantity.startswith("the ") or error.quantity in _METRIC_OF:
        metric = _METRIC_OF.get(error.quantity, error.quantity)
        hooks.report_metrics("rl-metrics", state.counters.step + run.transitions, {metric: error.value})
    # An iteration that diverged after its first update may succeed with a lower learning rate. An iteration that
    # diverged before its first update would diverge again at any rate, so the checkpoint from which it began is
    # withdrawn as well.
    updated = optimizer_steps(state.optimizer) > run.updates_before
    return withdraw_and_explain(
        error,
        state.writer.manager,
        hooks,
        number=iteration + 1 if updated else iteration,
        when=f"in iteration {iteration + 1}",
        change="lower ppo.learning_rate",
    )


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int:
    """Return the number of steps that `optimizer` has taken, including those of earlier attempts."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


_METRIC_OF = {"the PPO loss": names.POLICY_LOSS, "the gradient norm": names.RL_GRADIENT_NORM}
"""Maps `DivergedError.quantity` to the name of the metric under which the value that is not finite is recorded."""


def _check_finite(point: Mapping[str, float]) -> None:
    for name, value in point.items():
        require_finite(name, value)


@torch.no_grad()
def _check_policy(policy: GatingPolicy, observation: Tensor) -> None:
    """Raise DivergedError unless the updated policy's outputs for the rollout's observations are finite."""
    output = policy(observation)
    parts = [part for part in output if part is not None]
    if not bool(torch.stack([part.isfinite().all() for part in parts]).all()):
        raise DivergedError("the outputs of the policy contain NaN or infinity after its update", quantity="the policy")


class _ControllerTraining:
    """One attempt of a controller training, which runs its iterations."""

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
        self.transitions = 0
        """Number of transitions of the current iteration."""
        self.updates_before = 0
        """Number of steps that the optimiser had taken before the current iteration."""
        self.request: StopRequest | None = None
        self.started_at = self.saved_at = time.monotonic()

    def iterate(self) -> StopRequest | None:
        """Run iterations until transitions or time are used up, then return None.

        If a stop request arrives earlier, return the request.
        """
        ppo, counters = self.config.ppo, self.state.counters
        while counters.step < ppo.total_steps:
            wait_at_boundary(self.hooks, self.state)
            self.started_at = time.monotonic()
            steps = min(ppo.rollout_steps, -(-(ppo.total_steps - counters.step) // ppo.num_envs))
            grouped = ppo.advantages == "group"
            if grouped:
                steps = self.config.episode.max_length
            self.transitions, self.updates_before = steps * ppo.num_envs, optimizer_steps(self.state.optimizer)
            rollout = collect_rollout(
                self.state.environment,
                self.state.policy,
                steps,
                weights=self.state.controls.weights(self.config),
                generator=self.state.action_random,
                keep_going=self._keep_going,
                group_size=ppo.group_size if grouped else None,
            )
            if rollout is None:
                return self.request
            point = self.state.take_iteration(partial(self._update, rollout), self.transitions)
            self.hooks.report_metrics("rl-metrics", counters.step, point)
            self.started_at = time.monotonic()
            self.hooks.report_progress(counters.step, ppo.total_steps, min(1.0, self._share_of_time()))
            self._save_when_due(point.get(names.EVALUATION_REWARD))
        return None

    def _keep_going(self, t: int) -> bool:
        ppo, counters = self.config.ppo, self.state.counters
        self.hooks.wait_while_suspended()
        step = min(counters.step + t * ppo.num_envs, ppo.total_steps)
        self.hooks.report_progress(step, ppo.total_steps, min(1.0, self._share_of_time()))
        self.request = self.hooks.requested_stop()
        # The first iteration is always finished, even after the time limit, so that the policy has been trained.
        return self.request is None and (counters.iteration == 0 or self._share_of_time() < 1)

    def _share_of_time(self) -> float:
        """Return the used share of `max_seconds`, 0 without a limit.

        The current iteration is included; `counters.seconds` covers only finished ones.
        """
        if self.config.max_seconds is None:
            return 0.0
        return (self.state.counters.seconds + time.monotonic() - self.started_at) / self.config.max_seconds

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config, ppo, state, counters = self.config, self.config.ppo, self.state, self.state.counters
        progress = counters.step / ppo.total_steps
        if config.max_seconds is not None:
            progress = max(progress, counters.seconds / config.max_seconds)
        controls, weights = state.controls, state.controls.weights(config)
        entropy_coef = controls.entropy_coef_now(config, progress)
        learning_rate = schedules.decayed_learning_rate(ppo.learning_rate, progress)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate
        step_reward = require_finite(names.STEP_REWARD, float(rollout.kept(rollout.reward).mean()))
        kept_components = rollout.kept(rollout.components)
        diversity = rollout.components[..., DIVERSITY]
        mean_diversity = float(kept_components[:, DIVERSITY].mean())
        cost = schedules.hinge_cost(diversity, config.constraint.diversity_threshold)
        controls.adapt_diversity_weight(config, mean_diversity, self.transitions)
        # The advantages of the rollout are weighted by the multiplier before the dual step.
        constrained = config.constraint.mode == "lagrangian"
        if ppo.advantages == "group":
            batch, values, returns = rollout.group_batch(group_size=ppo.group_size, gamma=ppo.gamma)
        else:
            batch, values, returns = rollout.batch(
                gamma=ppo.gamma,
                gae_lambda=ppo.gae_lambda,
                reward=state.reward_scale.scale(rollout.reward, rollout.ended) if ppo.normalise_rewards else None,
                cost=cost if constrained else None,
                multiplier=controls.multiplier.value,
            )
        controls.adapt_multiplier(config, mean_diversity)
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
            target_kl=ppo.target_kl,
        )
        controls.adapt_entropy_coef(config, losses["entropy"], self.transitions)
        if config.policy.normalise_observations:
            state.observation_moments.update(batch.observation)
            state.policy.set_observation_scale(state.observation_moments.mean, state.observation_moments.variance)
        counters.episode.update(rollout.reward, rollout.ended)
        components, action = kept_components.mean(0), rollout.kept(rollout.action)
        point = {
            names.STEP_REWARD: step_reward,
            names.POLICY_LOSS: losses["policy_loss"],
            names.VALUE_LOSS: losses["value_loss"],
            names.COST_VALUE_LOSS: losses["cost_value_loss"],
            names.ENTROPY: losses["entropy"],
            names.ENTROPY_COEF: entropy_coef,
            names.MODULATION_MEAN: float(action.mean()),
            names.MODULATION_STD: float(action.std(correction=0)),
            names.EXPLAINED_VARIANCE: variance,
            **{names.REWARD_PREFIX + name: x for name, x in zip(REWARD_COMPONENTS, components.tolist(), strict=True)},
            names.DIVERSITY_WEIGHT: weights[DIVERSITY],
            names.LAGRANGE_MULTIPLIER: controls.multiplier.value if constrained else 0.0,
            names.COST: float(rollout.kept(cost).mean()),
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
        point[names.RL_STEPS_PER_SECOND] = rollout.reward.numel() / (time.monotonic() - self.started_at)
        if (counters.iteration + 1) % config.checkpoint_every_iterations == 0:
            point |= self._evaluate()
            _check_finite(point)
            reward = point[names.EVALUATION_REWARD]
            if counters.best_evaluation is None or reward > counters.best_evaluation:
                counters.best_evaluation = reward
        counters.seconds += time.monotonic() - self.started_at
        return point

    def _evaluate(self) -> dict[str, float]:
        """Return the reward of the deterministic policy on prompts that neither training nor ablation uses.

        The evaluation is a separate phase, because it takes as long as many steps and reports no progress.
        """
        self.hooks.phase("evaluation")
        learned = compared_policies(self.state.policy, self.config.ablation.fixed_modulation)[GatingMode.LEARNED]
        episodes = play_episodes(
            self.model,
            [learned],
            self.evaluation,
            self.config,
            self.statistics,
            end_token=self.end_token,
            seed=EVALUATION_SEED,
        )
        self.hooks.phase("training")
        means = dict(zip(QUANTITIES, episodes.values[0].mean(axis=0).tolist(), strict=True))
        return {names.EVALUATION_REWARD: means["total"], names.EVALUATION_MODULATION: means["modulation"]}

    def _save_when_due(self, evaluation: float | None) -> None:
        config, counters = self.config, self.state.counters
        intervals = (config.checkpoint_every_iterations, config.checkpoint_keep_every_iterations)
        due = any(interval is not None and counters.iteration % interval == 0 for interval in intervals)
        late = time.monotonic() - self.saved_at >= config.checkpoint_every_seconds
        if due or late or self.state.writer.retry_is_due:
            is_best = evaluation is not None and evaluation == counters.best_evaluation
            self.state.save_in_background(evaluation=evaluation if is_best else None)
            self.saved_at = time.monotonic()
