"""Fault 25 of 31: kill -9 while a checkpoint is written, and a newest checkpoint that is damaged.

The tests use the real trainer with a tiny configuration. A full disk is tested in `test_25_full_disk`.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from common.checkpoint import CheckpointManager
from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import trainers_of
from tests.faults.timers import Timers
from tests.integration.acceptance.stack import long_job

REAL_TRAINER = {"TIDAL_TRAINER_COMMAND": f"{sys.executable} -m services.trainer"}
CONFIG = {**long_job(), "checkpoint": {"every_steps": 5}}
STARTING_SECONDS = 60.0
"""Longest time in seconds that these tests wait for the start of a trainer.

Importing torch takes long on a busy machine. The specification has no limit for the start.
"""


def folder_of(workers: FaultWorkers, job_id: str) -> Path:
    return workers.experiment(job_id) / "checkpoints"


def complete_checkpoints(workers: FaultWorkers, job_id: str) -> list[str]:
    """Return the names of a job's complete checkpoints, oldest first."""
    return [info.name for info in CheckpointManager(folder_of(workers, job_id), keep_last=3).list()]


def registered(workers: FaultWorkers, job_id: str) -> int:
    return workers.event_names(job_id).count("checkpoint")


def wait_half_written(workers: FaultWorkers, job_id: str, rng: random.Random) -> None:
    """Wait until the trainer is writing a checkpoint."""
    deadline = time.monotonic() + 30
    while not any(folder_of(workers, job_id).glob(".tmp-*")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.01))  # the delay is random on purpose


def damage(checkpoint: Path, rng: random.Random) -> None:
    """Change one byte of a file of the checkpoint, or truncate the file."""
    file = rng.choice([checkpoint / "weights.safetensors", checkpoint / "training_state.pt"])
    content = bytearray(file.read_bytes())
    if rng.random() < 0.5:
        content[rng.randrange(len(content))] ^= 0xFF
    else:
        content = content[: rng.randrange(len(content))]
    file.write_bytes(content)


def test_fault_25_a_damaged_newest_checkpoint_is_skipped_with_an_event(
    workers: FaultWorkers, timers: Timers, rng: random.Random
) -> None:
    job_id = workers.submit(payload={"config": CONFIG})
    workers.worker("first", None, **REAL_TRAINER)
    workers.wait_for(lambda: registered(workers, job_id) >= 3, "three checkpoints", STARTING_SECONDS, job_id)
    wait_half_written(workers, job_id, rng)
    worker = workers.processes["first"].pid
    workers.kill("first")
    workers.wait_for(lambda: not trainers_of(worker), "the end of the trainer", 10)
    *_, older, newest = complete_checkpoints(workers, job_id)
    damage(folder_of(workers, job_id) / newest, rng)
    workers.worker("second", None, **REAL_TRAINER)
    workers.wait_for(
        lambda: workers.job(job_id).attempt == 2 and workers.job(job_id).status == "running",
        "the second attempt",
        timers.patience + STARTING_SECONDS,
        job_id,
    )
    events = {event.event: event.details for event in workers.events(job_id) if event.attempt == 2}
    assert events["checkpoint_skipped"]["checkpoint"] == newest
    assert events["resumed"]["step"] == int(older.removeprefix("step-").split(".")[0])
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled", STARTING_SECONDS)
