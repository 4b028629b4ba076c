"""Configuration sections of trainings that diverge, and what makes them diverge."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest
from torch import Tensor

from common.model import TransformerLM
from common.training import pretrain as loop


def sections(**training: Any) -> dict[str, Any]:
    """Return sections for twelve steps with a checkpoint every two steps.

    `training` overrides values of the section of that name.
    """
    return {
        "training": {"max_steps": 12, "log_every_steps": 50, "patience": 100, **training},
        "evaluation": {"every_steps": 4},
        "checkpoint": {"every_steps": 2, "keep_last": 2},
    }


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make a gradient infinite in the update that follows `at` updates. The loss stays finite."""
    original, updates = loop.clip_gradients, count()

    def clip(model: TransformerLM, *others: Any) -> Tensor:
        if next(updates) == at:
            gradient = next(model.parameters()).grad
            assert gradient is not None
            gradient[0, 0] = math.inf
        return original(model, *others)

    monkeypatch.setattr(loop, "clip_gradients", clip)
