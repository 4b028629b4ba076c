"""Small controller trainings, and hooks that record the reports of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from common.config import RLConfig
from common.controller import load_policy
from common.rl import train_policy
from common.rl.export import FINAL_POLICY
from common.training.hooks import NullHooks, Outcome, SavedCheckpoint, StopRequest
from tests.unit.common.rl.toys import END, toy_config, toy_corpus, toy_model


class Listener(NullHooks):
    """Hooks that record all reports. After `request_after` reports of progress, they return the stop `request`."""

    def __init__(self, request: StopRequest | None = None, request_after: int = 0) -> None:
        self.request, self.request_after = request, request_after
        self.points: list[tuple[int, dict[str, float]]] = []
        self.progress: list[tuple[int, int]] = []
        self.checkpoints: list[SavedCheckpoint] = []
        self.artifacts: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.phases: list[str] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        assert kind == "rl-metrics"
        self.points.append((step, dict(values)))

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        self.progress.append((step, total_steps))

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        self.checkpoints.append(info)

    def artifact_saved(self, name: str, kind: str) -> None:
        self.artifacts.append(name)

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    def requested_stop(self) -> StopRequest | None:
        return self.request if len(self.progress) >= self.request_after else None


def run_training(
    directory: Path, config: RLConfig | None = None, hooks: Listener | None = None
) -> tuple[Outcome, Listener]:
    """Train a policy for the toy model in `directory`; return how the training ended, and the hooks."""
    hooks = hooks or Listener()
    outcome = train_policy(config or toy_config(), toy_model(), toy_corpus(), directory, hooks, end_token=END)
    return outcome, hooks


def weights_of(directory: Path) -> dict[str, Tensor]:
    """Return the weights of the final policy in `directory`."""
    return load_policy(directory / FINAL_POLICY).state_dict()


def comparable(hooks: Listener) -> list[tuple[int, dict[str, float]]]:
    """Return the recorded metrics except the speed; they are equal for equal trainings."""
    return [(step, {k: v for k, v in values.items() if k != "steps_per_second"}) for step, values in hooks.points]
