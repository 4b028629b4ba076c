"""A training that is interrupted and resumed ends with bitwise the same result as one that is not interrupted.

A real worker runs language model trainings and controller trainings with the real trainer. Each training is killed with
SIGKILL at three random steps, or stopped and resumed as a new job. The reference is a training with the same
configuration, without interruption, in this process. The tests compare all parameters, the training state at the end
(moments of the optimizer, random states, position in the data), and all points of the metrics archive.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from common.artifacts import ArtifactStore
from common.checkpoint import CheckpointManager
from common.child.protocol import ChildJob
from common.config import LMConfig, RLConfig
from common.training.hooks import NullHooks, Outcome
from services.trainer.handlers import HANDLERS, JobPaths
from tests.faults.fault_workers import FaultWorkers
from tests.metrics_oracle import read_metrics
from tidal_client.vocabulary import JobType

pytestmark = pytest.mark.timeout(300)

STEPS = 60
WORDS = ["the", "a", "cat", "dog", "Lily", "Tom", "ran", "saw", "found", "little", "big", "red", "ball", "tree"]
LM = {
    "model": {
        "name": "tiny",
        "d_model": 8,
        "num_layers": 1,
        "num_heads": 2,
        "ffn_dim": 16,
        "context_length": 16,
        "dropout": 0.2,
    },
    "data": {"source": "words.txt", "validation_fraction": 0.2},
    "training": {
        "epochs": 1000,
        "max_steps": STEPS,
        "effective_batch_size": 6,
        "micro_batch_size": 2,
        "modulation_fraction": 0.5,
        "patience": 1000,
        "device": "cpu",
        "precision": "float32",
        "compile": "off",
        "threads": 1,
    },
    "evaluation": {"every_steps": 7, "batch_size": 4, "max_batches": 1, "prompts": ["the cat"], "sample_tokens": 2},
    "checkpoint": {"every_steps": 3},
}
TRANSITIONS = 24 * STEPS
RL = {
    "ppo": {"total_steps": TRANSITIONS, "num_envs": 3, "rollout_steps": 8, "epochs": 2, "minibatch_size": 8},
    "episode": {"max_length": 6, "prompt_max_tokens": 5, "statistics_documents": 20},
    "ablation": {"prompts": 2, "development_prompts": 2, "bootstrap_resamples": 100},
    "checkpoint_every_iterations": 3,
    "device": "cpu",
    "threads": 1,
}
TIMED = ("Bytes/Second", "Iterations/Second", "Tokens/Second", "steps_per_second")
"""Metrics that contain measured times; they differ between two trainings."""


@pytest.fixture
def corpus(workers: FaultWorkers) -> None:
    """Write a corpus to the data folder as words.txt, and make the processes of `workers` start the real trainer."""
    workers.environment["TIDAL_TRAINER_COMMAND"] = f"{sys.executable} -m services.trainer"
    chooser = random.Random(7)
    documents = [" ".join(chooser.choices(WORDS, k=chooser.randint(12, 24))) + "." for _ in range(60)]
    workers.settings.data_dir.mkdir(parents=True, exist_ok=True)
    (workers.settings.data_dir / "words.txt").write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")


class Kind:
    """What differs between the tests of language model training and of controller training."""

    def __init__(self, workers: FaultWorkers, job_type: JobType) -> None:
        self.workers, self.job_type = workers, job_type
        self.store = ArtifactStore(workers.settings.experiments_dir)
        self.lm = job_type is JobType.LM_TRAINING
        self.metrics = "metrics" if self.lm else "rl-metrics"
        self.unit = 1 if self.lm else TRANSITIONS // STEPS
        """By how much the reported step increases per training step."""
        lm_config = LMConfig.model_validate(LM).model_dump(mode="json")
        self.payload: dict[str, Any] = {"config": lm_config}
        if not self.lm:
            self.train_here("base", JobType.LM_TRAINING, _shorter(lm_config))
            self.payload = {
                "config": RLConfig.model_validate(RL).model_dump(mode="json"),
                "checkpoint": "base/tiny_v1.0.0.safetensors",
                "data": lm_config["data"],
            }
        self.reference = self.train_here("reference", job_type, self.payload)

    def train_here(self, experiment_id: str, job_type: JobType, payload: dict[str, Any]) -> Path:
        """Train without interruption in this process. Return the folder of the experiment."""
        job = ChildJob(
            job_id="job_here", attempt=1, job_type=job_type.value, experiment_id=experiment_id, payload=payload
        )
        hooks = Archive()
        paths = JobPaths(self.store, self.workers.settings.data_dir)
        assert HANDLERS[job_type.value](job, paths, hooks) is Outcome.COMPLETED
        folder = self.store.experiment(experiment_id)
        (folder / "points.json").write_text(json.dumps(hooks.points))
        return folder

    def parameters(self, folder: Path) -> dict[str, Tensor]:
        """Return the parameters in the file of the final model or policy."""
        if self.lm:
            return dict(torch.load(folder / "tiny_v1.0.0.pth", weights_only=True))
        return dict(torch.load(folder / "rl_checkpoint_final.pth", weights_only=True)["agent_state_dict"])

    def last_state(self, folder: Path) -> dict[str, Any]:
        """Return the training state in the newest checkpoint, without measured times."""
        manager = CheckpointManager(folder / "checkpoints", keep_last=1, prefix="step" if self.lm else "iter")
        newest = manager.latest()
        assert newest is not None and not manager.skipped
        state = manager.load(newest)[1]
        del state["counters"]["seconds"]
        for point in state.get("points", []):
            del point["steps_per_second"]
        return state

    def steps(self, job_id: str, attempt: int) -> list[int]:
        """Return the steps of all points that the attempt has written to the archive so far."""
        points = read_metrics(self.workers.experiment(job_id), self.metrics)
        return [point.step for point in points if point.attempt == attempt]


class Archive(NullHooks):
    """Training hooks that keep the metrics in memory."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        self.points.append((step, dict(values)))


def wait_for_step(workers: FaultWorkers, kind: Kind, job_id: str, attempt: int, step: int) -> None:
    """Wait until the attempt has reported a point of at least this step."""
    workers.wait_for(lambda: max(kind.steps(job_id, attempt), default=-1) >= step, f"step {step}", 90, job_id)


@pytest.mark.parametrize("job_type", [JobType.LM_TRAINING, JobType.RL_TRAINING])
def test_a_training_killed_at_three_random_steps_has_the_same_bits(
    job_type: JobType, workers: FaultWorkers, corpus: None, rng: random.Random
) -> None:
    kind = Kind(workers, job_type)
    job_id = workers.submit(type=job_type, payload=kind.payload)
    workers.worker()
    fifth = STEPS // 5
    killed_at: list[int] = []
    for attempt in (1, 2, 3):
        wanted = rng.randint(fifth * attempt, fifth * attempt + fifth // 2) * kind.unit
        wait_for_step(workers, kind, job_id, attempt, wanted)
        [trainer] = real_trainers(workers)
        os.kill(trainer.pid, signal.SIGKILL)
        psutil.wait_procs([trainer], timeout=10)
        killed_at.append(max(kind.steps(job_id, attempt)))
    job = workers.wait_status(job_id, "completed", 120)
    assert job.attempt == 4
    resumed = [event.details["step"] for event in workers.events(job_id) if event.event == "resumed" and event.details]
    assert len(resumed) == 3 and all(step <= killed for step, killed in zip(resumed, killed_at, strict=True))
    assert "resume_inexact" not in workers.event_names(job_id)
    compare(kind, workers.experiment(job_id))
    sys.stdout.write(f"{job_type}: killed at {killed_at}, resumed at {resumed}\n")


@pytest.mark.parametrize("job_type", [JobType.LM_TRAINING, JobType.RL_TRAINING])
def test_a_training_stopped_and_resumed_as_a_new_job_has_the_same_bits(
    job_type: JobType, workers: FaultWorkers, corpus: None, rng: random.Random
) -> None:
    kind = Kind(workers, job_type)
    parent = workers.submit(type=job_type, payload=kind.payload)
    workers.worker()
    wanted = rng.randint(STEPS // 4, STEPS // 2) * kind.unit
    workers.wait_for(lambda: max(kind.steps(parent, 1), default=-1) >= wanted, f"step {wanted}", 90, parent)
    workers.signal(parent, "stop")
    stopped = workers.wait_status(parent, "cancelled", 60)
    assert stopped.checkpoint_ref is not None and stopped.checkpoint_step is not None
    child = workers.submit(type=job_type, payload=kind.payload, parent_id=parent)
    finished = workers.wait_status(child, "completed", 120)
    assert finished.parent_id == parent and finished.experiment_id != stopped.experiment_id
    [resumed] = [event for event in workers.events(child) if event.event == "resumed"]
    assert resumed.details is not None and resumed.details["step"] == stopped.checkpoint_step
    compare(kind, workers.experiment(child), from_step=stopped.checkpoint_step)
    sys.stdout.write(f"{job_type}: stopped at {stopped.checkpoint_step}, resumed as {child}\n")


def compare(kind: Kind, folder: Path, *, from_step: int = -1) -> None:
    """Assert that parameters, final training state, and all archived points after `from_step` equal the reference."""
    expected, found = kind.parameters(kind.reference), kind.parameters(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    compared = list(same_bits(kind.last_state(kind.reference), kind.last_state(folder), "state"))
    points: dict[int, dict[str, float]] = {}
    for step, values in json.loads((kind.reference / "points.json").read_text()):
        if step > from_step:
            points.setdefault(step, {}).update(values)
    archive = read_metrics(folder, kind.metrics)
    assert [point.step for point in archive if point.step > from_step] == sorted(points), "a gap or a duplicate"
    for point in archive:
        if point.step > from_step:
            assert _untimed(point.values) == _untimed(points[point.step]), point.step
    lines = [
        json.loads(line)
        for path in (folder / "metrics").glob(f"{kind.metrics}-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    of_training = [(line["attempt"], line["step"]) for line in lines if "values" in line and _is_step(line["values"])]
    assert len(of_training) == len(set(of_training)), "an attempt reported a step twice"
    parameters = sum(tensor.numel() for tensor in expected.values())
    sys.stdout.write(f"{parameters} parameters, {len(compared)} values of state and {len(points)} points are equal\n")


def same_bits(expected: Any, found: Any, where: str) -> Iterator[str]:
    """Compare two values recursively, and fail at the first difference. Yield the path of each compared leaf."""
    if isinstance(expected, Tensor):
        assert torch.equal(expected, found), where
        yield where
    elif isinstance(expected, Mapping):
        assert expected.keys() == found.keys(), where
        for key in expected:
            yield from same_bits(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        assert len(expected) == len(found), where
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from same_bits(one, other, f"{where}[{index}]")
    else:
        assert expected == found, where
        yield where


def real_trainers(workers: FaultWorkers) -> list[psutil.Process]:
    """Return the processes of the worker's trainer."""
    worker = psutil.Process(workers.processes["worker"].pid)
    return [child for child in worker.children(recursive=True) if "services.trainer" in child.cmdline()]


def _untimed(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if name not in TIMED}


def _is_step(values: Mapping[str, Any]) -> bool:
    return "Losses/Total" in values or "policy_loss" in values


def _shorter(lm_config: dict[str, Any]) -> dict[str, Any]:
    training = {**lm_config["training"], "max_steps": 3}
    return {"config": {**lm_config, "training": training}}
