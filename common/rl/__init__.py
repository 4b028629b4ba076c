"""Controller training: reward, environment, rollout, PPO, ablation; re-exports `common.controller`."""

from common.rl.gae import gae
from common.rl.ppo import Batch, explained_variance, ppo_losses, ppo_update, standardise
from common.rl.rewards import COMPONENTS, StepReward, reward_components, reward_weights, step_reward
from common.rl.statistics import NgramStatistics

__all__ = [
    "COMPONENTS",
    "Batch",
    "NgramStatistics",
    "StepReward",
    "explained_variance",
    "gae",
    "ppo_losses",
    "ppo_update",
    "reward_components",
    "reward_weights",
    "standardise",
    "step_reward",
]
