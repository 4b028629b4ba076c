"""Writes the results of a controller training: policy in the original's format, logged points, ablation results.

Resumable checkpoints are in `common.rl.state`. `common.controller.load_policy` reads policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.checkpoint.files import write_object
from common.checkpoint.finite import require_finite_state
from common.checkpoint.vocabulary_file import META_KEY
from common.config import RLConfig
from common.files import write_atomic, write_json
from common.rl.state import ControllerState

FINAL_POLICY = "rl_checkpoint_final.pth"
METRICS_FILE = "rl_metrics/rl_training_metrics.json"
ABLATION_FILE = "ablation_results.json"


def write_policy(state: ControllerState, directory: Path) -> Path:
    """Write `rl_checkpoint_final.pth` in the original's format and return its path.

    The file holds agent_state_dict, optimizer_state_dict, global_step, config, the adapted coefficients that are in use
    and the vocabulary's name and digest. `config` has the sections of `RLConfig` and also the original's upper-case
    keys. Raises StorageError, and DivergedError if policy or optimiser state are not finite.
    """
    require_finite_state(state.policy.state_dict(), state.optimizer.state_dict())
    content = {
        "agent_state_dict": {name: tensor.detach().cpu() for name, tensor in state.policy.state_dict().items()},
        "optimizer_state_dict": state.optimizer.state_dict(),
        "global_step": state.counters.step,
        "config": {**state.config.model_dump(mode="json"), **original_keys(state.config)},
        **original_controls(state),
        META_KEY: asdict(state.policy.vocabulary),
    }
    path = directory / FINAL_POLICY
    write_atomic(path, lambda temporary: write_object(temporary, content))
    return path


def write_points(points: Sequence[Mapping[str, float]], directory: Path) -> Path:
    """Write `points`, one mapping per iteration, to `rl_metrics/rl_training_metrics.json` under the key "points".

    Raises StorageError.
    """
    path = directory / METRICS_FILE
    write_atomic(path, lambda temporary: write_json(temporary, {"points": [dict(point) for point in points]}))
    return path


def write_ablation_results(results: Mapping[str, Any], directory: Path) -> Path:
    """Write `ablation_results.json` and return its path. Raises StorageError."""
    path = directory / ABLATION_FILE
    write_atomic(path, lambda temporary: write_json(temporary, results))
    return path


def original_controls(state: ControllerState) -> dict[str, Any]:
    """Return the adapted coefficients that are in use, under the original's names."""
    config, controls = state.config, state.controls
    found: dict[str, Any] = {}
    if config.ppo.entropy_schedule == "homeostasis":
        found["entropy_homeostasis_coef"] = controls.entropy_coef
    if config.constraint.mode == "weighted" and config.diversity_homeostasis.target is not None:
        found["diversity_homeostasis_weight"] = controls.diversity_weight
    return found


def original_keys(config: RLConfig) -> dict[str, Any]:
    """Return the settings that the original also has, under the original's names."""
    ppo, episode, reward, modulation = config.ppo, config.episode, config.reward, config.modulation
    diversity, constraint = config.diversity_homeostasis, config.constraint
    return {
        "RL_AGENT_TYPE": config.policy.distribution,
        "RL_OBSERVATION_DIM": 64,
        "RL_ACTION_DIM": 1,
        "RL_HIDDEN_DIM": config.policy.hidden_dim,
        "RL_BETA_CONCENTRATION_MAX": config.policy.concentration_max,
        "RL_LEARNING_RATE": ppo.learning_rate,
        "RL_GAMMA": ppo.gamma,
        "RL_GAE_LAMBDA": ppo.gae_lambda,
        "RL_CLIP_EPSILON": ppo.clip_range,
        "RL_ENTROPY_COEF": ppo.entropy_coef,
        "RL_ENTROPY_COEF_FINAL": ppo.entropy_coef_final,
        "RL_ENTROPY_SCHEDULE": ppo.entropy_schedule,
        "RL_POLICY_ENTROPY_TARGET": ppo.policy_entropy_target,
        "RL_ENTROPY_HOMEOSTASIS_RELEASE_RATE": ppo.entropy_release_rate,
        "RL_ENTROPY_HOMEOSTASIS_DECAY_RATE": ppo.entropy_decay_rate,
        "RL_ENTROPY_COEF_MIN": ppo.entropy_coef_min,
        "RL_ENTROPY_COEF_MAX": ppo.entropy_coef_max,
        "RL_DIVERSITY_HOMEOSTASIS_TARGET": diversity.target,
        "RL_DIVERSITY_HOMEOSTASIS_RELEASE_RATE": diversity.release_rate,
        "RL_DIVERSITY_HOMEOSTASIS_DECAY_RATE": diversity.decay_rate,
        "RL_DIVERSITY_WEIGHT_MIN": diversity.weight_min,
        "RL_DIVERSITY_WEIGHT_MAX": diversity.weight_max,
        "RL_VALUE_COEF": ppo.value_coef,
        "RL_MAX_GRAD_NORM": ppo.max_grad_norm,
        "RL_ROLLOUT_STEPS": ppo.rollout_steps,
        "RL_NUM_EPOCHS": ppo.epochs,
        "RL_BATCH_SIZE": ppo.minibatch_size or 32 * ppo.num_envs,
        "RL_TOTAL_TIMESTEPS": ppo.total_steps,
        "RL_CONSTRAINT_MODE": constraint.mode,
        "RL_DIVERSITY_CONSTRAINT_THRESHOLD": constraint.diversity_threshold,
        "RL_LAGRANGE_MULTIPLIER_LR": constraint.multiplier_rate,
        "RL_LAGRANGE_MULTIPLIER_INIT": constraint.multiplier_init,
        "RL_UNFREEZE_DYNAMIC_GATES": False,
        "RL_MAX_EPISODE_LENGTH": episode.max_length,
        "RL_PROMPT_MIN_LENGTH": episode.prompt_min_tokens,
        "RL_PROMPT_MAX_LENGTH": episode.prompt_max_tokens,
        "RL_BASE_TEMPERATURE": modulation.base_temperature,
        "RL_BASE_REPETITION_PENALTY": modulation.base_repetition_penalty,
        "RL_MODULATION_TEMP_MIN": modulation.temperature.low,
        "RL_MODULATION_TEMP_MAX": modulation.temperature.high,
        "RL_MODULATION_PENALTY_MIN": modulation.repetition_penalty.low,
        "RL_MODULATION_PENALTY_MAX": modulation.repetition_penalty.high,
        "RL_MODULATION_TOP_K_MIN": modulation.top_k.low,
        "RL_MODULATION_TOP_K_MAX": modulation.top_k.high,
        "RL_MODULATION_TOP_P_MIN": modulation.top_p.low,
        "RL_MODULATION_TOP_P_MAX": modulation.top_p.high,
        "RL_REWARD_PERPLEXITY_WEIGHT": reward.perplexity_weight,
        "RL_REWARD_DIVERSITY_WEIGHT": reward.diversity_weight,
        "RL_REWARD_SAMPLING_WEIGHT": reward.sampling_weight,
        "RL_REWARD_REPETITION_WEIGHT": reward.repetition_weight,
        "RL_REWARD_COHERENCE_WEIGHT": reward.coherence_weight,
        "RL_PERPLEXITY_CLIP": reward.perplexity_clip,
        "RL_ENTROPY_TARGET": reward.entropy_target,
        "RL_SAMPLING_ENTROPY_TARGET": reward.sampling_entropy_target,
        "RL_EVAL_EPISODES": config.ablation.prompts,
    }
