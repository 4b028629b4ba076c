"""The names of metric values that training writes and charts, reports and tests read.

A point may carry other names as well; these are the ones with a promised meaning and unit. Pretraining uses the
original's names, so that its experiments and ours share charts; the controller's are snake_case, and a name with a
slash is a group and a member ("reward/diversity").
"""

from __future__ import annotations

LOSS = "Losses/Total"
"""Training loss of the step, nats per token."""
VALIDATION_LOSS = "Losses/Validation"
"""Nats per token over the validation part."""
PERPLEXITY = "Perplexity/Validation"
"""exp(VALIDATION_LOSS)."""
LEARNING_RATE = "Learning Rate"
GRADIENT_NORM = "Gradient Norm"
"""Before clipping."""
TOKENS_PER_SECOND = "Tokens/Second"
STEPS_PER_SECOND = "Iterations/Second"
"""Optimiser updates per second."""
TOKENS_SEEN = "Tokens/Seen"
EPOCH = "Epoch/Progress"
"""Finished epochs, with fraction."""

EPISODE_REWARD = "episode_reward"
"""Mean total reward of the episodes that ended in the iteration."""
POLICY_LOSS = "policy_loss"
VALUE_LOSS = "value_loss"
ENTROPY = "entropy"
"""Of the policy, nats."""
APPROX_KL = "approx_kl"
CLIP_FRACTION = "clip_fraction"
EXPLAINED_VARIANCE = "explained_variance"
MODULATION_MEAN = "modulation_mean"
MODULATION_STD = "modulation_std"
REWARD_PREFIX = "reward/"
"""Followed by the component: perplexity, diversity, sampling, repetition, coherence."""
