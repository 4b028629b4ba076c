"""Proximal policy optimisation: clipped surrogate, MSE value loss, entropy bonus (Schulman et al. 2017).

`ppo_update` runs all epochs over one flattened rollout and works on any policy with `evaluate(observation, action)`.
The value loss is not clipped. The caller standardises the advantages once per rollout (`standardise`), not per
minibatch. `common.rl.rollout` collects the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from common.errors import require_finite
from common.model.transfer import to_device

KL_TOLERANCE = 1.5
"""Factor by which the approximate KL divergence of a mini-batch may exceed `target_kl`."""


class ActorCritic(Protocol):
    """The interface of a policy that PPO can train."""

    def evaluate(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return log-probability, entropy, value and cost value (or None), each (N,), of N observations and actions."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that the optimiser updates."""
        ...


@dataclass(frozen=True)
class PPOBatch:
    """One flattened rollout of N transitions in float32.

    Shapes are (N,), except observation (N, O) and action (N, A).
    """

    observation: Tensor
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    """Standardised advantage."""
    returns: Tensor
    """Target of the value function: the advantage before standardising plus the value at the time of the rollout."""
    cost_returns: Tensor | None = None
    """Targets of the cost critic; None outside the constrained mode."""

    def __len__(self) -> int:
        return int(self.observation.shape[0])

    def take(self, index: Tensor) -> PPOBatch:
        """Return the transitions at `index`."""
        cost = None if self.cost_returns is None else self.cost_returns[index]
        return PPOBatch(
            self.observation[index],
            self.action[index],
            self.log_prob[index],
            self.advantage[index],
            self.returns[index],
            cost,
        )


@dataclass(frozen=True)
class Losses:
    """The loss of one minibatch and its parts, all scalars; call `backward` on `total`."""

    total: Tensor
    policy: Tensor
    value: Tensor
    cost_value: Tensor
    entropy: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def standardise(advantages: Tensor) -> Tensor:
    """Return (A − mean) / (unbiased std + 1e-8) over all elements; a single element becomes 0."""
    centred = advantages - advantages.mean()
    if advantages.numel() < 2:
        return centred
    return centred / (advantages.std() + 1e-8)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Return 1 − Var(returns − values) / Var(returns), clipped to [−1, 1], a scalar; 0 if Var(returns) < 1e-8."""
    variance = returns.var(correction=0)
    score = (1 - (returns - values).var(correction=0) / variance.clamp_min(1e-8)).clamp(-1, 1)
    return torch.where(variance < 1e-8, torch.zeros_like(score), score)


def ppo_losses(
    policy: ActorCritic, batch: PPOBatch, *, clip_range: float, value_coef: float, entropy_coef: float
) -> Losses:
    """Return the losses of one minibatch.

    total = clipped surrogate + value_coef · MSE [+ value_coef · cost MSE] − entropy_coef · entropy.
    """
    log_prob, entropy, value, cost_value = policy.evaluate(batch.observation, batch.action)
    log_ratio = log_prob - batch.log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -torch.minimum(ratio * batch.advantage, clipped * batch.advantage).mean()
    value_loss = (value - batch.returns).pow(2).mean()
    cost_loss = torch.zeros_like(value_loss)
    if cost_value is not None and batch.cost_returns is not None:
        cost_loss = (cost_value - batch.cost_returns).pow(2).mean()
    mean_entropy = entropy.mean()
    total = policy_loss + value_coef * (value_loss + cost_loss) - entropy_coef * mean_entropy
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
    return Losses(total, policy_loss, value_loss, cost_loss, mean_entropy, approx_kl, clip_fraction)


def ppo_update(
    policy: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: PPOBatch,
    *,
    epochs: int,
    minibatch_size: int,
    clip_range: float,
    value_coef: float,
    entropy_coef: float,
    max_grad_norm: float,
    generator: torch.Generator,
    target_kl: float | None = None,
) -> dict[str, float]:
    """Run all epochs over one rollout; return the means of the `Losses` over the minibatches, and `gradient_norm`.

    Each epoch uses a new permutation sampled on the CPU from `generator`. approx_kl is the estimator mean((r − 1) − ln
    r) of Schulman's note "Approximating KL divergence"; clip_fraction is the share of transitions with |r − 1| >
    clip_range. Here, r is the probability ratio of new and old policy. Loss and gradient norm are checked before each
    step of the optimiser; this check is the only synchronisation with the device per minibatch. With `target_kl`, the
    update ends before a step whose approx_kl exceeds 1.5 · target_kl, as in Stable-Baselines3. Raises DivergedError if
    the loss or the gradient norm is not finite.
    """
    most_kl = math.inf if target_kl is None else KL_TOLERANCE * target_kl
    sums: Tensor | None = None
    updates, stopped = 0, False
    parameters = list(policy.parameters())
    for _ in range(epochs):
        if stopped:
            break
        order = to_device(torch.randperm(len(batch), generator=generator), batch.observation.device)
        for index in torch.split(order, minibatch_size):
            losses = ppo_losses(
                policy, batch.take(index), clip_range=clip_range, value_coef=value_coef, entropy_coef=entropy_coef
            )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.total)
            norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            loss_value, norm_value, kl = torch.stack([losses.total.detach(), norm, losses.approx_kl]).tolist()
            require_finite("the PPO loss", loss_value)
            require_finite("the gradient norm", norm_value)
            if stopped := kl > most_kl:
                break
            optimizer.step()
            parts = (losses.policy, losses.value, losses.cost_value, losses.entropy)
            row = torch.stack([*(part.detach() for part in parts), losses.approx_kl, losses.clip_fraction, norm])
            sums = row if sums is None else sums + row
            updates += 1
    names = ("policy_loss", "value_loss", "cost_value_loss", "entropy", "approx_kl", "clip_fraction", "gradient_norm")
    if sums is None:
        return dict.fromkeys(names, 0.0)
    return dict(zip(names, (sums / updates).tolist(), strict=True))
