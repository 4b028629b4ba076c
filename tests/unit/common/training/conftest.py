"""A tiny corpus, the configuration of a tiny model, and hooks that record reports and request stops."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import LMConfig
from common.config.loader import merge
from common.disk import Shortage
from common.training.hooks import NullHooks, SavedCheckpoint, StopRequest


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file with 60 documents of 12 to 24 words each, and return its path. The documents are always the same."""
    chooser = random.Random(7)
    words = ["the", "a", "cat", "dog", "Lily", "Tom", "ran", "saw", "found", "little", "big", "red", "ball", "tree"]
    documents = [" ".join(chooser.choices(words, k=chooser.randint(12, 24))) + "." for _ in range(60)]
    path = tmp_path_factory.mktemp("corpus") / "words.txt"
    path.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder for the whole test session; it contains the token cache."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make_config(text_file: Path) -> Callable[..., LMConfig]:
    """Return the function `make_config(training={…}, …)`, which builds the tiny configuration with overrides."""

    def make(**sections: Mapping[str, Any]) -> LMConfig:
        base = {
            "model": {
                "name": "tiny",
                "d_model": 8,
                "num_layers": 1,
                "num_heads": 2,
                "ffn_dim": 16,
                "context_length": 16,
                "gate_hidden_dim": 4,
                "dropout": 0.2,
            },
            "data": {"source": str(text_file), "validation_fraction": 0.2},
            "training": {
                "epochs": 2,
                "max_steps": 6,
                "effective_batch_size": 6,
                "micro_batch_size": 2,
                "learning_rate": 0.01,
                "modulation_fraction": 0.5,
                "device": "cpu",
                "precision": "float32",
                "compile": "off",
                "threads": 1,
            },
            "evaluation": {
                "every_steps": 2,
                "batch_size": 4,
                "max_batches": 2,
                "prompts": ["the cat"],
                "sample_tokens": 3,
            },
            "checkpoint": {"every_seconds": 3600.0},
        }
        return LMConfig.model_validate(merge(base, sections))

    return make


@dataclass
class Recorder(NullHooks):
    """Hooks that record all reports, and return the stop `request` after `after` calls of `report_progress`."""

    request: StopRequest | None = None
    after: int = 1
    in_phase: str | None = None
    """If set, `request` is returned from the beginning of this phase on, and `after` has no effect."""
    metrics: list[tuple[str, int, dict[str, float]]] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    checkpoints: list[SavedCheckpoint] = field(default_factory=list)
    artifacts: list[tuple[str, str]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    suspensions: int = 0
    before: int = 0
    """Number of calls of `before_checkpoint`."""
    kept: list[str] = field(default_factory=list)
    withdrawn: list[tuple[list[str], str | None]] = field(default_factory=list)
    time_shares: list[float] = field(default_factory=list)
    save: Callable[[], SavedCheckpoint | None] | None = None
    on_progress: Callable[[int], None] = lambda _: None
    find_shortage: Callable[[], Shortage | None] = lambda: None
    """Returns the shortage that `disk_shortage` reports."""
    waits: list[Shortage | None] = field(default_factory=list)
    """The arguments of all calls of `waiting_for_disk`."""

    def disk_shortage(self, *, data: bool = False, next_write_bytes: int = 0) -> Shortage | None:
        return self.find_shortage()

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        self.waits.append(shortage)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self.metrics.append((kind, step, dict(values)))

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        self.progress.append((step, total_steps))
        self.time_shares.append(time_share)
        self.on_progress(len(self.progress))

    def requested_stop(self) -> StopRequest | None:
        if self.in_phase is not None:
            return self.request if self.in_phase in self.phases else None
        return self.request if len(self.progress) >= self.after else None

    def before_checkpoint(self) -> None:
        self.before += 1

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        self.kept = list(names)

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        self.withdrawn.append((list(names), None if newest is None else newest.name))

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        self.checkpoints.append(info)

    def artifact_saved(self, name: str, kind: str) -> None:
        self.artifacts.append((name, kind))

    def event(self, name: str, **details: Any) -> None:
        self.events.append((name, details))

    def offer_checkpoint(self, save: Callable[[], SavedCheckpoint | None] | None) -> None:
        self.save = save

    def wait_while_suspended(self) -> None:
        self.suspensions += 1

    def series(self, name: str) -> dict[int, float]:
        """Return {step: value} of one metric."""
        return {step: values[name] for _, step, values in self.metrics if name in values}

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the details of all events named `name`."""
        return [details for event, details in self.events if event == name]


@pytest.fixture
def recorder() -> type[Recorder]:
    """Return the class `Recorder`, because a test may need several recorders."""
    return Recorder
