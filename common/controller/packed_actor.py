"""Computes `GatingPolicy.act_rows` with packed weights, for decoding.

The computation has about twenty small operations, whose overhead takes most of the time. Therefore the weights are
stored in the layout that `addmm` needs, and no module is called; this saves a quarter of the time at 16 rows. A packed
actor cannot be trained, and later changes of the policy do not affect it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.controller.policy import GatingPolicy


class PackedActor:
    """A copy of one policy's actor with packed weights, on the policy's device."""

    def __init__(self, policy: GatingPolicy) -> None:
        self._policy = policy
        norm = policy.feature_extractor[0]
        assert isinstance(norm, nn.LayerNorm)
        self._norm = list(norm.normalized_shape), norm.weight.detach(), norm.bias.detach(), norm.eps
        layers = [layer for layer in (*policy.feature_extractor, *policy.actor) if isinstance(layer, nn.Linear)]
        *self._hidden, self._last = ((layer.bias.detach(), layer.weight.detach().t().contiguous()) for layer in layers)

    def act_rows(self, observation: Tensor, uniform: Tensor, sample_mask: Tensor | None) -> Tensor:
        """Return the actions (B, 1) that `GatingPolicy.act_rows` returns."""
        x = torch.layer_norm(self._policy.normalise(observation), *self._norm)
        for bias, weight in self._hidden:
            x = torch.addmm(bias, x, weight).tanh_()
        bias, weight = self._last
        return self._policy.actions_from_head(torch.addmm(bias, x, weight), uniform, sample_mask)
