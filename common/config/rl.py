"""What one controller training does: policy, PPO, reward, controllers, prompts, ablation (`configs/rl_config.yaml`).

The defaults are `configs/presets/rl-batched.yaml`; beside it lie `rl-reproduce.yaml` and the reward weights of the
original's shipped file. The language model it steers comes from a checkpoint, not from this file. Loaded by
`common.config.load_rl_config`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import Section


class PolicyConfig(Section):
    """The actor-critic network."""

    distribution: Literal["beta", "gaussian"] = "beta"
    """Family of the action's distribution; gaussian is squashed by a sigmoid."""
    hidden_dim: int = Field(128, ge=2)
    """Width of the first layer; the second has half of it, the heads a quarter."""
    concentration_max: float = Field(15.0, gt=1)
    """Cap of alpha and beta."""


class Range(Section):
    """Ends of a linear map of the modulation."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class ModulationConfig(Section):
    """modulation in [0, 1] to decoding parameters."""

    base_temperature: float = Field(1.0, gt=0)
    base_repetition_penalty: float = Field(1.2, gt=0)
    temperature: Range = Range(low=0.3, high=2.0)
    """Factor on base_temperature."""
    repetition_penalty: Range = Range(low=1.0, high=3.5)
    """Factor on base_repetition_penalty."""
    top_k: Range = Range(low=5, high=100)
    top_p: Range = Range(low=0.7, high=1.0)


class RewardConfig(Section):
    """the weights and targets of the step reward."""

    perplexity_weight: float = Field(0.35, ge=0)
    diversity_weight: float = Field(0.15, ge=0)
    sampling_weight: float = Field(0.15, ge=0)
    repetition_weight: float = Field(0.20, ge=0)
    coherence_weight: float = Field(0.15, ge=0)
    perplexity_clip: float = Field(100.0, gt=1)
    entropy_target: float = Field(5.0, gt=0)
    """Nats, of the full scored distribution."""
    sampling_entropy_target: float = Field(2.5, gt=0)
    """Nats, of the distribution sampled from."""


class PPOConfig(Section):
    """clipped PPO."""

    total_steps: int = Field(2_000_000, ge=1)
    """Transitions in all."""
    num_envs: int = Field(32, ge=1)
    """Sequences rolled out at once."""
    rollout_steps: int = Field(128, ge=1)
    """Steps per environment and iteration."""
    epochs: int = Field(4, ge=1)
    minibatch_size: int | None = Field(None, ge=1)
    """Transitions; None: 32 × num_envs."""
    learning_rate: float = Field(3e-4, gt=0)
    """Falls linearly to 10 %."""
    gamma: float = Field(0.99, gt=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    clip_range: float = Field(0.2, gt=0)
    value_coef: float = Field(0.5, ge=0)
    max_grad_norm: float = Field(0.5, gt=0)
    entropy_coef: float = Field(0.01, ge=0)
    """Start of the linear schedule and baseline of the homeostasis."""
    entropy_coef_final: float = Field(0.03, ge=0)
    entropy_schedule: Literal["linear"] = "linear"
    """The homeostasis is a pure function in `common.rl.schedules`; its job option comes with the controller release."""


class EpisodeConfig(Section):
    """Episodes and the prompts they begin with; prompts are the beginnings of documents."""

    max_length: int = Field(50, ge=1)
    """Tokens generated per episode."""
    prompt_min_tokens: int = Field(3, ge=1)
    prompt_max_tokens: int = Field(10, ge=1)
    statistics_documents: int = Field(5000, ge=1)
    """Documents whose n-grams the coherence reward counts."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.prompt_min_tokens > self.prompt_max_tokens:
            raise ValueError(
                f"prompt_min_tokens {self.prompt_min_tokens} is above prompt_max_tokens {self.prompt_max_tokens}"
            )
        return self


class AblationConfig(Section):
    """Comparison of policies after training, on prompts no training step saw."""

    prompts: int = Field(200, ge=2)
    """Paired prompts: every policy gets the same ones with the same seeds."""
    bootstrap_resamples: int = Field(1000, ge=100)
    fixed_modulation: float = Field(0.5, ge=0, le=1)
    seed: int = Field(1234, ge=0)


class RLConfig(Section):
    """A whole controller training."""

    policy: PolicyConfig = PolicyConfig()
    ppo: PPOConfig = PPOConfig()
    episode: EpisodeConfig = EpisodeConfig()
    reward: RewardConfig = RewardConfig()
    modulation: ModulationConfig = ModulationConfig()
    ablation: AblationConfig = AblationConfig()
    checkpoint_every_iterations: int = Field(10, ge=1)
    checkpoint_every_seconds: float = Field(60.0, gt=0)
    checkpoint_keep_last: int = Field(3, ge=1)
    """Newest checkpoints that stay on disk; the best by evaluation reward stays as well."""
    checkpoint_keep_every_iterations: int | None = Field(None, ge=1)
    """Checkpoints at multiples of so many iterations stay, too."""
    max_seconds: float | None = Field(None, gt=0)
    """Wall time after which training ends as if complete (ablation follows); None: no limit."""
    seed: int = Field(42, ge=0)
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """CPU threads; None: all cores."""

    @model_validator(mode="after")
    def _some_reward(self) -> Self:
        r = self.reward
        total = r.perplexity_weight + r.diversity_weight + r.sampling_weight + r.repetition_weight + r.coherence_weight
        if total <= 0:
            raise ValueError("all reward weights are 0; give at least one component a weight")
        return self
