"""Controller training: reward, environment, rollout, PPO, ablation and headroom. Also names of `common.controller`."""

from common.controller import (
    GatingPolicy,
    TokenHistory,
    build_observation,
    build_observations,
    decoding_parameters,
    load_policy,
)
from common.rl.ablation import run_ablation, run_ablation_job
from common.rl.environment import DecodingEnvironment, Transition
from common.rl.gae import gae
from common.rl.headroom import measure_headroom, run_headroom_job
from common.rl.ppo import PPOBatch, explained_variance, ppo_losses, ppo_update, standardise
from common.rl.rewards import StepReward, reward_components, reward_weights, step_reward
from common.rl.rollout import EpisodeMean, Rollout, collect_rollout
from common.rl.statistics import NgramStatistics
from common.rl.train import select_compute_device, train_controller, train_policy

__all__ = [
    "DecodingEnvironment",
    "EpisodeMean",
    "GatingPolicy",
    "NgramStatistics",
    "PPOBatch",
    "Rollout",
    "StepReward",
    "TokenHistory",
    "Transition",
    "build_observation",
    "build_observations",
    "collect_rollout",
    "decoding_parameters",
    "explained_variance",
    "gae",
    "load_policy",
    "measure_headroom",
    "ppo_losses",
    "ppo_update",
    "reward_components",
    "reward_weights",
    "run_ablation",
    "run_ablation_job",
    "run_headroom_job",
    "select_compute_device",
    "standardise",
    "step_reward",
    "train_controller",
    "train_policy",
]
