"""Rotary position embedding (Su et al., arXiv 2104.09864) in the half-split layout of the original checkpoints.

The rotation is `x · cos + r(x) · sin` with r([a, b]) = [−b, a] on the two halves of a head and angle(pos, i) = pos ·
theta^(−2i/K), where K is the width of a head. Positions beyond the trained context are not supported.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(context_length: int, head_dim: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of all angles, each (context_length, K) float32.

    Both halves of a head have the same frequencies.
    """
    frequencies = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))
    angles = torch.outer(torch.arange(context_length, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x (B, H, T, K) rotated by tables (T, K) or (B, 1, T, K), in the dtype of x."""
    a, b = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-b, a), dim=-1) * sin).type_as(x)
