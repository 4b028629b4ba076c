"""Controller training: reward, environment, rollout, PPO, ablation; re-exports `common.controller`."""

from common.controller import (
    GatingPolicy,
    TokenHistory,
    build_observation,
    build_observations,
    decoding_parameters,
    load_policy,
)
from common.rl.ablation import run_ablation, write_ablation
from common.rl.environment import DecodingEnvironment, Transition
from common.rl.gae import gae
from common.rl.ppo import Batch, explained_variance, ppo_losses, ppo_update, standardise
from common.rl.rewards import COMPONENTS, StepReward, reward_components, reward_weights, step_reward
from common.rl.rollout import EpisodeMean, Rollout, collect
from common.rl.statistics import NgramStatistics
from common.rl.train import prepare, train_controller, train_policy

__all__ = [
    "COMPONENTS",
    "Batch",
    "DecodingEnvironment",
    "EpisodeMean",
    "GatingPolicy",
    "NgramStatistics",
    "Rollout",
    "StepReward",
    "TokenHistory",
    "Transition",
    "build_observation",
    "build_observations",
    "collect",
    "decoding_parameters",
    "explained_variance",
    "gae",
    "load_policy",
    "ppo_losses",
    "ppo_update",
    "prepare",
    "reward_components",
    "reward_weights",
    "run_ablation",
    "standardise",
    "step_reward",
    "train_controller",
    "train_policy",
    "write_ablation",
]
