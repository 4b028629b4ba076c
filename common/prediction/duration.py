"""Predicts the duration of each phase of a pretraining from the calibration of a machine.

A micro-batch of N tokens takes head(N) + L · block(N) + N · L · T · H · attention(K) seconds. The costs of head and
block were measured at a few widths. Between them, the cost per token of a block follows a power of the width, and that
of the head a straight line; above the largest width, costs grow with the FLOPs. The width of the feed-forward layer and
the size of the vocabulary scale the cost of their matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from common.config.lm import LMConfig
from common.config.model import ModelConfig
from common.config.tokenizers import TRAINING_CHARACTERS, trained_size
from common.prediction.calibration import BlockCost, Calibration, HeadCost, LinearCost
from common.prediction.memory import kept_bytes
from common.prediction.model_size import matmul_parameters, muon_flops, parameters
from common.prediction.plan import TrainingPlan

VOCABULARY_COST = 3.0
"""Seconds in which a vocabulary is trained on a text, in multiples of the seconds in which it is tokenised."""
PHASES = ("start", "tokenise", "training", "validation", "samples", "saving")
"""The phases in the order of a training."""
FINAL_MODELS = 2
"""Files of the final model, in two formats, that are written at the end of a training beside a checkpoint."""


def micro_batch_seconds(model: ModelConfig, length: int, tokens: float, calibration: Calibration) -> float:
    """Return the seconds of a forward and backward pass of `tokens` tokens in sequences of `length` tokens."""
    head, block, attention = _costs(model, calibration)
    return head.seconds(tokens) + model.num_layers * (block.seconds(tokens) + tokens * length * attention)


def validation_seconds(model: ModelConfig, length: int, tokens: float, calibration: Calibration) -> float:
    """Return the seconds of the forward passes of a validation with `tokens` tokens."""
    head, block, attention = _costs(model, calibration)
    in_blocks = model.num_layers * tokens * (block.per_token + length * attention)
    return calibration.evaluation_head * head.per_token * tokens + calibration.evaluation_block * in_blocks


def phase_seconds(
    config: LMConfig, plan: TrainingPlan, calibration: Calibration, *, text_bytes: int, tokens_per_second: float | None
) -> dict[str, float]:
    """Return {phase: seconds} for the phases in PHASES.

    `tokens_per_second` is the measured speed of earlier runs of the same shape, which replaces the calibration's;
    `text_bytes` is the size of the text that has to be tokenised first.
    """
    training, model = config.training, config.model
    if tokens_per_second is not None:
        steps = plan.tokens / tokens_per_second
    else:
        steps = calibrated_seconds(config, plan, calibration)
    validated = plan.validations * plan.validation_tokens + plan.initial_validation_tokens
    validation = validation_seconds(model, plan.length, validated, calibration)
    tokens = len(config.evaluation.prompts) * config.evaluation.sample_tokens
    per_token = (
        calibration.decode_fixed
        + calibration.decode_per_layer * model.num_layers
        + calibration.decode_per_weight * matmul_parameters(model)
    )
    samples, last_samples = (plan.samples - 1) * tokens * per_token, tokens * per_token
    if training.max_seconds is not None:
        # The limit includes the validations and samples between the steps.
        share = min(1.0, training.max_seconds / max(steps + validation + samples, 1e-9))
        steps, validation, samples = steps * share, validation * share, samples * share
    written = kept_bytes(config) + FINAL_MODELS * 4 * parameters(model)
    return {
        "start": calibration.start_seconds,
        "tokenise": (text_bytes + _vocabulary_bytes(config, text_bytes)) / calibration.tokenise_bytes_per_second,
        "training": steps,
        "validation": validation,
        "samples": samples + last_samples,
        "saving": written / calibration.disk_bytes_per_second,
    }


def _vocabulary_bytes(config: LMConfig, text_bytes: int) -> float:
    """Return how many bytes could be tokenised in the time in which the vocabulary is trained; 0 for GPT-2's."""
    if trained_size(config.data.tokenizer) is None:
        return 0.0
    return VOCABULARY_COST * min(text_bytes, TRAINING_CHARACTERS)


def calibrated_seconds(config: LMConfig, plan: TrainingPlan, calibration: Calibration) -> float:
    """Return the seconds of all steps, without validations, that follow from the calibration."""
    tokens = plan.tokens / max(1, plan.micro_batches)
    passes = plan.micro_batches * micro_batch_seconds(config.model, plan.length, tokens, calibration)
    updates = plan.steps * parameters(config.model) * calibration.update_seconds_per_parameter
    if config.training.optimizer == "muon":
        updates += plan.steps * muon_flops(config.model) / calibration.gemm_flops_per_second
    threads = config.training.threads or calibration.threads
    return (passes + updates) * max(1.0, calibration.threads / threads)


def _costs(model: ModelConfig, calibration: Calibration) -> tuple[LinearCost, LinearCost, float]:
    """Return three costs: of the head, of one block, and of attention in seconds per token and position of the
    sequence."""
    D, F = model.d_model, model.ffn_dim
    head = _interpolated(calibration.heads, D, exponent=1.0)
    block = _interpolated(calibration.blocks, D, exponent=2.0)
    scale = (4 * D * D + 2 * D * F) / (12 * D * D)
    block = LinearCost(fixed=block.fixed, per_token=block.per_token * scale)
    share = model.vocab_size / calibration.heads[0].vocabulary
    head = LinearCost(fixed=head.fixed * share, per_token=head.per_token * share)
    per_head = calibration.attention_base + calibration.attention_per_channel * model.head_dim
    return head, block, model.num_heads * per_head


def _interpolated(costs: Sequence[BlockCost | HeadCost], width: int, *, exponent: float) -> LinearCost:
    """Return the cost at `width`.

    Above the largest measured width, the cost per token is proportional to width^exponent. Below the smallest one, it
    is proportional to the width, because reading and writing numbers dominates there.
    """
    first, last = costs[0], costs[-1]
    if width <= first.width:
        share = width / first.width
        return LinearCost(fixed=first.training.fixed, per_token=first.training.per_token * share)
    if width >= last.width:
        share = (width / last.width) ** exponent
        return LinearCost(fixed=last.training.fixed * width / last.width, per_token=last.training.per_token * share)
    right = next(index for index, cost in enumerate(costs) if cost.width >= width)
    low, high = costs[right - 1], costs[right]
    at = math.log(width / low.width) / math.log(high.width / low.width)
    straight = (width - low.width) / (high.width - low.width)
    if exponent == 1.0:
        per_token = low.training.per_token + straight * (high.training.per_token - low.training.per_token)
    else:
        per_token = low.training.per_token * (high.training.per_token / low.training.per_token) ** at
    fixed = low.training.fixed + straight * (high.training.fixed - low.training.fixed)
    return LinearCost(fixed=fixed, per_token=per_token)
