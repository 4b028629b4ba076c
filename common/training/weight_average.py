"""A running average of the weights, which usually predicts better than the weights of the last step.

The average has its own model, so that validation and another thread that writes a checkpoint never see it exchanged
with the trained weights. `common.training.training_state` stores both.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from common.model import TransformerLM

_SHARED = ("gates_trained", "vocabulary")
"""Attributes of a model besides its weights, which a training may set after the average was made."""


class WeightAverage:
    """The exponential moving average of the weights of `trained`; it begins with their present values."""

    def __init__(self, trained: TransformerLM, decay: float) -> None:
        self._trained = trained
        self._decay = decay
        with torch.random.fork_rng(devices=[]):  # so that the new model does not change the training's random numbers
            self._model = TransformerLM(trained.config).to(trained.device)
        self._model.eval().requires_grad_(False)
        self.load(trained.state_dict())

    @property
    def model(self) -> TransformerLM:
        """The model with the averaged weights."""
        for name in _SHARED:
            if hasattr(self._trained, name):
                setattr(self._model, name, getattr(self._trained, name))
        return self._model

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the averaged weights by `weights`, a state dict."""
        self._model.load_state_dict(weights)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after update number `step` (the first is 1) to the average.

        average ← β average + (1 − β) weights with β = min(decay, (1 + step) / (10 + step)). The smaller β of the first
        steps is that of TensorFlow's ExponentialMovingAverage: without it, the random initial weights would stay in the
        average for about 1 / (1 − decay) steps.
        """
        decay = min(self._decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(self._model.parameters()), list(self._trained.parameters()), 1.0 - decay)
