"""The names of metric values that training writes and charts, reports and tests read.

A point may carry other names as well; these are the ones with a promised meaning and unit. Names are snake_case; a
name with a slash is a group and a member ("reward/diversity"). The second half maps the names of an imported
experiment of the original to ours.
"""

from __future__ import annotations

LOSS = "loss"
"""Training loss of the step, nats per token."""
VALIDATION_LOSS = "validation_loss"
"""Nats per token over the validation part."""
PERPLEXITY = "perplexity"
"""exp(VALIDATION_LOSS)."""
LEARNING_RATE = "learning_rate"
GRADIENT_NORM = "gradient_norm"
"""Before clipping."""
TOKENS_PER_SECOND = "tokens_per_second"
STEPS_PER_SECOND = "steps_per_second"
TOKENS_SEEN = "tokens_seen"
EPOCH = "epoch"
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

IMPORTED = {
    "Losses/Total": LOSS,
    "Learning Rate": LEARNING_RATE,
    "Iterations/Second": STEPS_PER_SECOND,
    "Epoch/Progress": EPOCH,
}
"""Names in metrics.jsonl of the original."""
