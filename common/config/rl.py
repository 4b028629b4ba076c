"""The configuration of a controller training: policy, PPO, episodes, reward, modulation and ablation.

`common.config.load_rl_config` loads it from a file such as `configs/rl_config.yaml`. The defaults are those of
`configs/presets/rl-batched.yaml`. The preset `rl-reproduce.yaml` in the same folder reproduces the original project.
The language model is not part of the configuration; it comes from a checkpoint.
"""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from common.config.base import Section

NEGLIGIBLE_MODULATION: Final = 0.05
"""Reports do not call the modulation varied or changed if its standard deviation, or the difference between two means,
is below this value. The temperature then varies by less than 0.09."""


class PolicyConfig(Section):
    """The actor-critic network of the controller."""

    distribution: Literal["beta", "gaussian"] = "beta"
    """Distribution of the action, which is a modulation in [0, 1]; a sigmoid maps a gaussian to this interval."""
    hidden_dim: int = Field(128, ge=2)
    """Width of the first layer. The second layer has half this width, the hidden layers of the heads a quarter."""
    concentration_max: float = Field(15.0, gt=1)
    """Upper bound of the parameters alpha and beta of the beta distribution."""
    normalise_observations: bool = False
    """Whether observations are scaled by their mean and standard deviation over all finished rollouts, and clipped to
    ±10. The original project cannot load such a policy."""
    deterministic_action: Literal["mean", "mode"] = "mean"
    """The action where none is sampled: mean or mode of the distribution. The original project uses the mode, which for
    a skewed beta distribution is near 0 or 1 and far from the actions that training has rewarded."""


class Range(Section):
    """The values to which modulation 0 and 1 are mapped; values between them are interpolated linearly."""

    low: float
    """Value for modulation 0."""
    high: float
    """Value for modulation 1."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class ModulationConfig(Section):
    """The map from a modulation in [0, 1] to the decoding parameters."""

    base_temperature: float = Field(1.0, gt=0)
    """The sampling temperature is this value multiplied by `temperature`."""
    base_repetition_penalty: float = Field(1.2, gt=0)
    """The repetition penalty is this value multiplied by `repetition_penalty`."""
    temperature: Range = Range(low=0.3, high=2.0)
    """Factor by which base_temperature is multiplied."""
    repetition_penalty: Range = Range(low=1.0, high=3.5)
    """Factor by which base_repetition_penalty is multiplied."""
    top_k: Range = Range(low=5, high=100)
    """Top-k: tokens are sampled from this number of most likely ones."""
    top_p: Range = Range(low=0.7, high=1.0)
    """Top-p: tokens are sampled from the most likely ones, up to this total probability."""


class RewardConfig(Section):
    """Weights and targets of the reward of a transition."""

    perplexity_weight: float = Field(0.35, ge=0)
    """Weight of the perplexity term."""
    diversity_weight: float = Field(0.15, ge=0)
    """Weight of the diversity term."""
    sampling_weight: float = Field(0.15, ge=0)
    """Weight of the sampling-entropy term."""
    repetition_weight: float = Field(0.20, ge=0)
    """Weight of the repetition term."""
    coherence_weight: float = Field(0.15, ge=0)
    """Weight of the coherence term."""
    perplexity_clip: float = Field(100.0, gt=1)
    """Largest perplexity that the perplexity term uses; larger values are clipped to it."""
    entropy_target: float = Field(5.0, gt=0)
    """Target entropy of the model's distribution before top-k and top-p, in nats."""
    sampling_entropy_target: float = Field(2.5, gt=0)
    """Target entropy, in nats, of the distribution from which tokens are sampled."""


REWARD_COMPONENTS: Final = tuple(
    name.removesuffix("_weight") for name in RewardConfig.model_fields if name.endswith("_weight")
)
"""Names of the reward components, in the order of their weights in RewardConfig."""


class PPOConfig(Section):
    """PPO with the clipped objective."""

    total_steps: int = Field(2_000_000, ge=1)
    """Number of transitions (generated tokens) of the whole training."""
    num_envs: int = Field(32, ge=1)
    """Number of environments: sequences that are generated at once."""
    rollout_steps: int = Field(128, ge=1)
    """Number of steps per environment in each rollout. An iteration is one rollout and the updates after it."""
    epochs: int = Field(4, ge=1)
    """Number of passes over each rollout."""
    minibatch_size: int | None = Field(None, ge=1)
    """Number of transitions per mini-batch; None means 32 × num_envs."""
    learning_rate: float = Field(3e-4, gt=0)
    """Learning rate at the start of training; it falls linearly to 10 % of this value."""
    advantages: Literal["gae", "group"] = "gae"
    """gae: generalized advantage estimation with a critic. group: whole episodes, several of each prompt, which are
    each other's baseline. A rollout then has episode.max_length steps; rollout_steps and gae_lambda are not used."""
    group_size: int = Field(8, ge=2)
    """Number of episodes of each prompt with group advantages; num_envs must be a multiple of it."""
    gamma: float = Field(0.99, gt=0, le=1)
    """Discount factor."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """Lambda of generalized advantage estimation."""
    clip_range: float = Field(0.2, gt=0)
    """Clip range of the probability ratio of new to old policy."""
    target_kl: float | None = Field(None, gt=0)
    """The updates of an iteration end as soon as the approximate KL divergence of a mini-batch exceeds 1.5 times this
    value; None means that all epochs are run."""
    normalise_rewards: bool = False
    """Whether rewards are divided by the standard deviation of the discounted returns so far. Reported rewards are
    unscaled. Group advantages do not depend on the scale, and do not use it."""
    value_coef: float = Field(0.5, ge=0)
    """Weight of the value loss."""
    max_grad_norm: float = Field(0.5, gt=0)
    """Largest norm of the gradient; a gradient with a larger norm is scaled down to it."""
    entropy_coef: float = Field(0.01, ge=0)
    """Weight of the entropy bonus at the start of the linear schedule."""
    entropy_coef_final: float = Field(0.03, ge=0)
    """Weight of the entropy bonus at the end of the linear schedule."""
    entropy_schedule: Literal["linear", "homeostasis", "integral"] = "linear"
    """How the entropy coefficient changes. linear: from entropy_coef to entropy_coef_final. homeostasis: it rises while
    the policy entropy is below its target, and decays towards entropy_coef, which leaves a steady error. integral: it
    changes by the distance from the target until there is none. The rates apply per 128 transitions."""
    policy_entropy_target: float = -0.35
    """Target of the mean policy entropy in nats, for homeostasis and integral. That of the uniform distribution is
    0."""
    entropy_release_rate: float = Field(0.05, ge=0)
    """Homeostasis: change of the coefficient per nat below the target."""
    entropy_decay_rate: float = Field(0.95, ge=0, le=1)
    """Homeostasis: factor by which the distance of the coefficient from entropy_coef shrinks."""
    entropy_integral_rate: float = Field(0.01, ge=0)
    """Integral: change of the coefficient per nat of distance from the target."""
    entropy_coef_min: float = Field(0.01, ge=0)
    """Smallest coefficient of homeostasis and integral."""
    entropy_coef_max: float = Field(0.5, ge=0)
    """Largest coefficient of homeostasis and integral."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.entropy_coef_min > self.entropy_coef_max:
            raise ValueError(
                f"entropy_coef_min {self.entropy_coef_min} is above entropy_coef_max {self.entropy_coef_max}"
            )
        if self.advantages == "group" and self.num_envs % self.group_size:
            raise ValueError(f"num_envs {self.num_envs} is not a multiple of group_size {self.group_size}")
        return self


class EpisodeConfig(Section):
    """The lengths of episodes and of their prompts. A prompt is the beginning of a document of the corpus."""

    max_length: int = Field(50, ge=1)
    """Largest number of tokens that are generated per episode."""
    prompt_min_tokens: int = Field(3, ge=1)
    """Smallest number of tokens of a prompt."""
    prompt_max_tokens: int = Field(10, ge=1)
    """Largest number of tokens of a prompt."""
    statistics_documents: int = Field(5000, ge=1)
    """Number of documents whose n-grams are counted for the coherence term."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.prompt_min_tokens > self.prompt_max_tokens:
            raise ValueError(
                f"prompt_min_tokens {self.prompt_min_tokens} is above prompt_max_tokens {self.prompt_max_tokens}"
            )
        return self


class DiversityHomeostasisConfig(Section):
    """Adapts the weight of the diversity term to the mean diversity of each rollout. The other weights stay.

    The rates apply per 128 transitions. The constrained mode takes its place.
    """

    target: float | None = Field(None, ge=0, le=1)
    """Diversity below which the weight rises, such as 0.55; None keeps the weight constant."""
    release_rate: float = Field(0.03, ge=0)
    """Change of the weight per unit of diversity below the target."""
    decay_rate: float = Field(0.95, ge=0, le=1)
    """Factor by which the distance of the weight from reward.diversity_weight shrinks."""
    weight_min: float = Field(0.15, ge=0)
    """Smallest weight."""
    weight_max: float = Field(0.35, ge=0)
    """Largest weight."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.weight_min > self.weight_max:
            raise ValueError(f"weight_min {self.weight_min} is above weight_max {self.weight_max}")
        return self


class ConstraintConfig(Section):
    """The constrained mode (PPO-Lagrangian): diversity is a constraint instead of a term of the reward.

    The weights of diversity and repetition are 0, the others are scaled to the sum 1. A multiplier λ weighs the cost,
    the shortfall of the diversity below its threshold. λ = proportional part + integral part + derivative part of the
    mean signed shortfall, and at least 0 (PID Lagrangian, Stooke et al. 2020).
    """

    mode: Literal["weighted", "lagrangian"] = "weighted"
    """weighted: no constraint. lagrangian: the constrained mode."""
    diversity_threshold: float = Field(0.55, ge=0, le=1)
    """Mean diversity that the policy must reach. The metric cost uses it in both modes."""
    multiplier_init: float = Field(1.0, ge=0)
    """Multiplier at the start."""
    multiplier_rate: float = Field(0.05, ge=0)
    """Integral gain: change of the multiplier per unit of shortfall and iteration."""
    multiplier_proportional: float = Field(0.0, ge=0)
    """Proportional gain. It dampens the oscillation that the integral part alone causes."""
    multiplier_derivative: float = Field(0.0, ge=0)
    """Derivative gain, which acts only while the shortfall grows."""


class AblationConfig(Section):
    """The ablation, a comparison of policies after training, on prompts that were not used for training."""

    prompts: int = Field(200, ge=2)
    """Number of prompts. All policies have the same prompts and seeds."""
    development_prompts: int = Field(100, ge=2)
    """Number of other prompts, on which the best of 21 constant modulations is chosen."""
    bootstrap_resamples: int = Field(1000, ge=100)
    """Number of bootstrap resamples from which confidence intervals are computed."""
    fixed_modulation: float = Field(0.5, ge=0, le=1)
    """Modulation that the fixed policy always chooses."""
    seed: int = Field(1234, ge=0)
    """Seed of all random numbers of the ablation."""


class HeadroomConfig(Section):
    """The measurement of the headroom: what a policy could gain over the best constant modulation, before training."""

    documents: int = Field(100, ge=4)
    """Number of validation documents. Policies are fitted to one half of them and evaluated on the other."""
    positions: int = Field(20, ge=1)
    """Number of contexts of each document, evenly spaced over the steps of an episode."""
    bootstrap_resamples: int = Field(1000, ge=100)
    """Number of bootstrap resamples of the documents, from which intervals are computed."""
    seed: int = Field(1234, ge=0)
    """Seed of the documents, of their halves and of the resamples."""


class RLConfig(Section):
    """The configuration of a controller training."""

    policy: PolicyConfig = PolicyConfig()
    ppo: PPOConfig = PPOConfig()
    episode: EpisodeConfig = EpisodeConfig()
    reward: RewardConfig = RewardConfig()
    diversity_homeostasis: DiversityHomeostasisConfig = DiversityHomeostasisConfig()
    constraint: ConstraintConfig = ConstraintConfig()
    modulation: ModulationConfig = ModulationConfig()
    ablation: AblationConfig = AblationConfig()
    headroom: HeadroomConfig = HeadroomConfig()
    checkpoint_every_iterations: int = Field(10, ge=1)
    """Largest number of iterations between checkpoints."""
    checkpoint_every_seconds: float = Field(60.0, gt=0)
    """Largest time between checkpoints, in seconds."""
    checkpoint_keep_last: int = Field(3, ge=1)
    """How many of the newest checkpoints are kept. The best checkpoint by evaluation reward is kept as well."""
    checkpoint_keep_every_iterations: int | None = Field(None, ge=1)
    """Checkpoints whose iteration is a multiple of this number are kept in addition to the best one and the
    `checkpoint_keep_last` newest; None means that only those are kept."""
    max_seconds: float | None = Field(None, gt=0)
    """Wall time in seconds after which training ends as if it were complete, with an ablation; None means no limit."""
    seed: int = Field(42, ge=0)
    """Seed of all random numbers of the training."""
    device: str = "auto"
    """Device of the training: cpu, cuda, cuda:N, or auto, which prefers an available GPU."""
    threads: int | None = Field(None, ge=1)
    """Number of CPU threads; None means one per core."""
    tensorboard: bool = True
    """Whether the metrics are also written as TensorBoard event files."""

    @model_validator(mode="after")
    def _has_a_reward(self) -> Self:
        if sum(getattr(self.reward, f"{name}_weight") for name in REWARD_COMPONENTS) <= 0:
            raise ValueError("all reward weights are 0; set at least one weight above 0")
        if self.constraint.mode == "lagrangian" and self.ppo.advantages == "group":
            raise ValueError("the constrained mode needs a critic; set ppo.advantages to gae")
        kept = ("perplexity", "sampling", "coherence")
        if self.constraint.mode == "lagrangian" and not any(getattr(self.reward, f"{name}_weight") for name in kept):
            raise ValueError(
                "the constrained mode omits the weights of diversity and repetition, and all others are 0; set another"
                " weight above 0, or constraint.mode to weighted"
            )
        return self
