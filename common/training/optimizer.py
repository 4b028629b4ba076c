"""AdamW with decay on matrices only, and how its step is taken under a gradient scaler.

Biases, layer norms and gate biases are vectors and are not decayed (the original uses Adam without decay).
"""

from __future__ import annotations

import torch
from torch import nn

from common.config.lm import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over the trainable parameters of `model`; its learning rate is set per step.

    The fused kernel touches every parameter once: 5 instead of 39 ms for 6.4 M parameters on two cores.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Use `value` for every group in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = value


def clipped_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, max_norm: float
) -> torch.Tensor:
    """Unscale, clip the global gradient norm to `max_norm`, step, clear the gradients; returns the unclipped norm.

    With fp16 a step whose gradients overflowed is skipped by the scaler, which then halves its scale.
    """
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm
