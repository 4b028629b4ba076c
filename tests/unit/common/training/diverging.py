"""Configuration sections of trainings that diverge."""

from __future__ import annotations

from typing import Any


def sections(**training: Any) -> dict[str, Any]:
    """Return sections for twelve steps with a checkpoint every two steps.

    `training` overrides values of the section of that name.
    """
    return {
        "training": {"max_steps": 12, "log_every_steps": 50, "patience": 100, **training},
        "evaluation": {"every_steps": 4},
        "checkpoint": {"every_steps": 2, "keep_last": 2},
    }
