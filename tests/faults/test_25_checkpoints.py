"""Fault 25: kill -9 in the middle of a checkpoint, the newest checkpoint damaged, and a disk that fills up.

With the real trainer and a tiny configuration. The full disk is a small file system of its own where one can be mounted
(root), otherwise a limit on the size of a file that the running trainer is given: both refuse the write for want of
space, with ENOSPC and EFBIG.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.checkpoint import CheckpointInfo, CheckpointManager
from common.config import Settings
from tests.faults.fault_fleet import FaultFleet
from tests.faults.moments import trainers_of
from tests.faults.timers import Timers
from tests.integration.acceptance.stack import long_job

REAL_TRAINER = {"TIDAL_TRAINER_COMMAND": ""}
CONFIG = {**long_job(), "checkpoint": {"every_steps": 5}}
STARTING_SECONDS = 60.0
"""Imports of torch on a busy machine; no promise."""


def folder_of(fleet: FaultFleet, job_id: str) -> Path:
    return fleet.experiment(job_id) / "checkpoints"


def whole(fleet: FaultFleet, job_id: str) -> list[str]:
    """Names of the checkpoints of a job, oldest first."""
    return [info.name for info in CheckpointManager(folder_of(fleet, job_id), keep_last=3).list()]


def registered(fleet: FaultFleet, job_id: str) -> int:
    return fleet.event_names(job_id).count("checkpoint")


def wait_half_written(fleet: FaultFleet, job_id: str, rng: random.Random) -> None:
    """Until the trainer is in the middle of a checkpoint."""
    deadline = time.monotonic() + 30
    while not any(folder_of(fleet, job_id).glob(".tmp-*")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.01))  # the moment is the experiment


def damage(checkpoint: Path, rng: random.Random) -> None:
    """Flip a byte, or cut the file short."""
    file = rng.choice([checkpoint / "weights.safetensors", checkpoint / "training_state.pt"])
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] ^= 0xFF
    else:
        content = content[: rng.randrange(len(content))]
    file.write_bytes(content)


def test_fault_25_a_damaged_newest_checkpoint_is_skipped_with_an_event(
    fleet: FaultFleet, timers: Timers, rng: random.Random
) -> None:
    job_id = fleet.submit(payload={"config": CONFIG})
    fleet.worker("first", None, **REAL_TRAINER)
    fleet.wait_for(lambda: registered(fleet, job_id) >= 3, "three checkpoints", STARTING_SECONDS, job_id)
    wait_half_written(fleet, job_id, rng)
    worker = fleet.processes["first"].pid
    fleet.kill("first")
    fleet.wait_for(lambda: not trainers_of(worker), "the end of the trainer", 10)
    *_, older, newest = whole(fleet, job_id)
    damage(folder_of(fleet, job_id) / newest, rng)
    fleet.worker("second", None, **REAL_TRAINER)
    fleet.wait_for(
        lambda: fleet.job(job_id).attempt == 2 and fleet.job(job_id).status == "running",
        "the second attempt",
        timers.patience + STARTING_SECONDS,
        job_id,
    )
    events = {event.event: event.details for event in fleet.events(job_id) if event.attempt == 2}
    assert events["checkpoint_skipped"]["checkpoint"] == newest
    assert events["resumed"]["step"] == int(older.removeprefix("step-").split(".")[0])
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled", STARTING_SECONDS)


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[bool]:
    """The experiments' folder as a file system of 300 MB; False where none can be mounted."""
    settings.experiments_dir.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(settings.experiments_dir)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    yield mounted
    if mounted:
        subprocess.run(["umount", "-l", str(settings.experiments_dir)], check=True)


def test_fault_25_a_full_disk_is_told_and_costs_no_whole_checkpoint(
    small_disk: bool, fleet: FaultFleet, rng: random.Random
) -> None:
    job_id = fleet.submit(payload={"config": CONFIG})
    fleet.worker("first", None, **REAL_TRAINER)
    count = rng.randint(1, 6)
    fleet.wait_for(lambda: registered(fleet, job_id) >= count, f"{count} checkpoints", STARTING_SECONDS, job_id)
    [trainer] = trainers_of(fleet.processes["first"].pid)
    ballast = fleet.settings.experiments_dir / "ballast"
    if small_disk:
        fill(ballast)
    else:
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    fleet.wait_for(lambda: "checkpoint_failed" in fleet.event_names(job_id), "the failure", 30, job_id)
    failed = next(event.details for event in fleet.events(job_id) if event.event == "checkpoint_failed")
    assert "cannot be written" in failed["reason"]
    assert "free some space" in failed["reason"]
    last = newest_of(fleet, job_id)
    then = rng.choice(["room", "killed", "stopped"])
    if then == "stopped":
        fleet.signal(job_id, "stop")
        job = fleet.wait_status(job_id, "cancelled", STARTING_SECONDS)
        assert job.checkpoint_ref == f"{job.experiment_id}/checkpoints/{newest_of(fleet, job_id).name}"
        ballast.unlink(missing_ok=True)
        job_id = fleet.submit(payload={"config": CONFIG}, parent_id=job_id)
    elif then == "killed":
        trainer.kill()
        trainer.wait(10)
        ballast.unlink(missing_ok=True)
    else:
        ballast.unlink(missing_ok=True)
        resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        before = registered(fleet, job_id)
        fleet.wait_for(lambda: registered(fleet, job_id) > before, "another checkpoint", STARTING_SECONDS, job_id)
        assert fleet.job(job_id).attempt == 1
    if then != "room":
        fleet.wait_for(lambda: "resumed" in fleet.event_names(job_id), "the continuation", STARTING_SECONDS, job_id)
        [resumed] = [event.details for event in fleet.events(job_id) if event.event == "resumed"]
        assert resumed["step"] >= last.step
        assert "checkpoint_skipped" not in fleet.event_names(job_id), "nothing half-written was taken for a checkpoint"
    fleet.wait_status(job_id, "running", STARTING_SECONDS)
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled", STARTING_SECONDS)
    steps = metric_steps(fleet, job_id)
    assert steps == list(range(steps[0], steps[0] + len(steps))), "points that found no room are not lost"


def metric_steps(fleet: FaultFleet, job_id: str) -> list[int]:
    """Steps of the points that count, in the order of the archive."""
    steps: list[int] = []
    for segment in sorted((fleet.experiment(job_id) / "metrics").glob("metrics-*.jsonl")):
        for line in segment.read_text().splitlines():
            point = json.loads(line)
            if "rewind" in point:
                steps = [step for step in steps if step <= point["rewind"]["step"]]
            elif "Losses/Total" in point["values"]:
                steps.append(point["step"])
    return steps


def newest_of(fleet: FaultFleet, job_id: str) -> CheckpointInfo:
    """The newest checkpoint on disk, whose hashes verify."""
    manager = CheckpointManager(folder_of(fleet, job_id), keep_last=3)
    latest = manager.latest()
    assert latest is not None
    assert manager.skipped == []
    return latest


def fill(file: Path) -> None:
    """Take all that is left of a file system."""
    with file.open("wb", buffering=0) as ballast:
        for size in (2**20, 2**12):
            block = bytes(size)
            try:
                while True:
                    ballast.write(block)
            except OSError:
                continue
