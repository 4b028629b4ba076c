"""Computes quantiles of the policy's distributions.

With quantiles each row is sampled from one uniform number, independently of the other rows.

The quantile of a Beta has no closed form. The density is tabulated on a grid and summed by the trapezoid rule, and the
table is inverted by linear interpolation. alpha and beta are in 1..15, so the density is bounded and changes
little from one grid point to the next.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GRID = 2048


def beta_quantile(alpha: Tensor, beta: Tensor, uniform: Tensor) -> Tensor:
    """Return x with P(X ≤ x) = uniform for X ~ Beta(alpha, beta), with an error below 1e-4.

    All arguments are (B, 1); alpha and beta must be at least 1.
    """
    x = torch.linspace(0.0, 1.0, _GRID + 1, device=alpha.device, dtype=torch.float64)
    a, b = alpha.double() - 1.0, beta.double() - 1.0
    # xlogy makes 0·ln 0 = 0 at both ends.
    log_density = torch.xlogy(a, x) + torch.xlogy(b, 1.0 - x)
    density = (log_density - log_density.amax(1, keepdim=True)).exp()
    below = torch.nn.functional.pad((density[:, 1:] + density[:, :-1]).cumsum(1), (1, 0))
    target = uniform.double() * below[:, -1:]
    right = torch.searchsorted(below, target, right=True).clamp(1, _GRID)
    low, high = below.gather(1, right - 1), below.gather(1, right)
    share = (target - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)
    return ((right - 1 + share) / _GRID).to(alpha.dtype)


def normal_quantile(mean: Tensor, deviation: Tensor, uniform: Tensor) -> Tensor:
    """Return x with P(X ≤ x) = uniform for X ~ N(mean, deviation²); all arguments are (B, 1).

    `uniform` is clamped to [2^−25, 1 − 2^−25], so that x is finite.
    """
    tiny = 2.0**-25
    standard: Tensor = torch.special.ndtri(uniform.clamp(tiny, 1.0 - tiny))
    return mean + deviation * standard
