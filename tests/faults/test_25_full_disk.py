"""Fault 25 of 31: the disk of the experiments becomes full during a training.

The training waits for free space, and neither loses nor repeats a step. PostgreSQL, Valkey, worker and trainer are
real. A job that waited must end with exactly the losses and weights of a job that did not wait, even if the job is
paused or its worker is killed during the wait.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.torch import load_file

from common.config import Settings
from common.db import Job
from common.metrics import names
from tests.faults.fault_workers import FaultWorkers
from tests.faults.moments import trainers_of
from tests.faults.small_disk import SmallDisk, small_disk
from tests.integration.acceptance.stack import long_job
from tidal_client.vocabulary import WAITING_FOR_DISK

pytestmark = pytest.mark.timeout(300)

STEPS = 400
REAL_TRAINER = f"{sys.executable} -m services.trainer"
CONFIG: dict[str, Any] = {**long_job(STEPS), "checkpoint": {"every_steps": 100, "keep_last": 2}}
NO_PROGRESS_SECONDS, PHASE_SECONDS = 2.0, 15.0
LONGER_SECONDS = PHASE_SECONDS + 3
"""Seconds for which a test lets a job wait for free space.

It is longer than PHASE_SECONDS, after which the worker kills a trainer that sends no message.
"""
PATIENCE = 90.0
"""Longest time in seconds that these tests wait for a trainer, which has to import torch on a busy machine."""
SAME = (names.LOSS, names.LEARNING_RATE, names.GRADIENT_NORM)


@pytest.fixture
def disk(settings: Settings) -> Iterator[SmallDisk]:
    with small_disk(settings.experiments_dir) as found:
        yield found


@pytest.fixture
def waiting(disk: SmallDisk, workers: FaultWorkers) -> Iterator[str]:
    """Return the id of a job whose trainer has executed about forty steps and waits for free space."""
    job_id = workers.submit(payload={"config": CONFIG})
    start(workers, disk)
    wait_until_it_waits(workers, disk, job_id)
    yield job_id
    disk.empty()


def start(workers: FaultWorkers, disk: SmallDisk, name: str = "first", reserve_mb: int | None = None) -> None:
    workers.worker(
        name,
        None,
        TIDAL_TRAINER_COMMAND=REAL_TRAINER,
        TIDAL_DISK_RESERVE_MB=str(disk.reserve_mb if reserve_mb is None else reserve_mb),
        TIDAL_NO_PROGRESS_SECONDS=str(NO_PROGRESS_SECONDS),
        TIDAL_PHASE_SECONDS=str(PHASE_SECONDS),
    )


def wait_until_it_waits(workers: FaultWorkers, disk: SmallDisk, job_id: str, *, leave_mb: int = 45) -> None:
    workers.wait_for(lambda: (workers.job(job_id).progress_step or 0) > 40, "forty steps", PATIENCE, job_id)
    disk.fill(leave_mb=leave_mb)
    workers.wait_for(lambda: stands_still(workers, job_id), "the wait", 30, job_id)


def refuse(disk: SmallDisk, trainer: int) -> None:
    """Make every write of a checkpoint fail.

    Fill the mounted disk or, without one, limit the size of the trainer's files to 1 MiB.
    """
    if disk.mounted:
        disk.fill(leave_mb=0)
    else:
        resource.prlimit(trainer, resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))


def stands_still(workers: FaultWorkers, job_id: str) -> bool:
    job = workers.job(job_id)
    reported = [event.attempt for event in workers.events(job_id) if event.event == WAITING_FOR_DISK]
    return job.progress_phase == WAITING_FOR_DISK and reported[-1:] == [job.attempt]


def points(workers: FaultWorkers, job_id: str) -> list[dict[str, Any]]:
    """Return the points with a loss from all attempts, in the order in which they were written."""
    lines: list[dict[str, Any]] = []
    for segment in sorted(
        (workers.experiment(job_id) / "metrics").glob("metrics-*.jsonl"),
        key=lambda path: [int(part) for part in path.stem.split("-")[1:]],
    ):
        lines += [json.loads(line) for line in segment.read_text().splitlines()]
    return [line for line in lines if names.LOSS in line.get("values", {})]


def assert_undisturbed(workers: FaultWorkers, job_id: str, reference: str) -> None:
    """Assert that each step was executed once, with the same metrics and final weights as in the job `reference`."""
    own_points, expected_points = points(workers, job_id), points(workers, reference)
    assert [point["step"] for point in own_points] == list(range(1, STEPS + 1))
    for actual, expected in zip(own_points, expected_points, strict=True):
        assert [actual["values"][name] for name in SAME] == [expected["values"][name] for name in SAME]
    models = [next(workers.experiment(one).glob("*.safetensors")) for one in (job_id, reference)]
    weights, expected = (load_file(model) for model in models)
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in expected)


def details(workers: FaultWorkers, job_id: str, name: str) -> list[dict[str, Any]]:
    return [event.details or {} for event in workers.events(job_id) if event.event == name]


def finished(workers: FaultWorkers, job_id: str) -> Job:
    return workers.wait_status(job_id, "completed", PATIENCE)


def undisturbed(workers: FaultWorkers) -> str:
    """Run a job with the configuration `CONFIG` on a disk with free space, and return the id of the job."""
    reference = workers.submit(payload={"config": CONFIG})
    finished(workers, reference)
    return reference


def test_fault_25_a_training_waits_for_a_full_disk_and_goes_on_by_itself(
    waiting: str, disk: SmallDisk, workers: FaultWorkers
) -> None:
    [reported] = details(workers, waiting, WAITING_FOR_DISK)
    assert reported["disk"] == "experiments" and reported["free_bytes"] < reported["needed_bytes"]
    step, lease = workers.job(waiting).progress_step, workers.job(waiting).lease_expires_at
    with pytest.raises(AssertionError, match="not seen"):
        workers.wait_for(lambda: not stands_still(workers, waiting), "the end of the wait", LONGER_SECONDS)
    held = workers.job(waiting)
    assert held.progress_step == step and held.status == "running" and held.attempt == 1
    assert lease is not None and held.lease_expires_at is not None and held.lease_expires_at > lease, (
        "the lease is renewed"
    )
    assert held.checkpoint_step == step, "the last step is saved, using space of the reserve"
    disk.empty()
    workers.wait_for(lambda: "disk_wait_ended" in workers.event_names(waiting), "the end of the wait", 20, waiting)
    finished(workers, waiting)
    assert workers.job(waiting).attempt == 1
    assert "sigkill_sent" not in workers.event_names(waiting) and "checkpoint_failed" not in workers.event_names(
        waiting
    )
    assert_undisturbed(workers, waiting, undisturbed(workers))


def test_fault_25_a_pause_while_it_waits_loses_nothing(waiting: str, disk: SmallDisk, workers: FaultWorkers) -> None:
    step = workers.job(waiting).progress_step
    workers.signal(waiting, "pause")
    paused = workers.wait_status(waiting, "paused", 20)
    assert paused.checkpoint_step == step == points(workers, waiting)[-1]["step"]
    workers.signal(waiting, "resume")
    workers.wait_for(lambda: stands_still(workers, waiting), "the wait of the next attempt", PATIENCE, waiting)
    assert workers.job(waiting).status in ("provisioning", "starting"), "the new attempt waits before it loads anything"
    disk.empty()
    finished(workers, waiting)
    assert_undisturbed(workers, waiting, undisturbed(workers))


def test_fault_25_a_stop_while_it_waits_loses_nothing(waiting: str, disk: SmallDisk, workers: FaultWorkers) -> None:
    step = workers.job(waiting).progress_step
    workers.signal(waiting, "stop")
    stopped = workers.wait_status(waiting, "cancelled", 20)
    assert stopped.checkpoint_step == step == points(workers, waiting)[-1]["step"]
    assert "sigterm_sent" not in workers.event_names(waiting)
    assert details(workers, waiting, "disk_wait_ended")[0]["left_for"] == "stop"


def test_fault_25_a_complete_while_it_waits_writes_the_model_into_the_reserve(
    waiting: str, disk: SmallDisk, workers: FaultWorkers
) -> None:
    step = workers.job(waiting).progress_step
    workers.signal(waiting, "complete")
    finished(workers, waiting)
    assert points(workers, waiting)[-1]["step"] == step
    assert list(workers.experiment(waiting).glob("*.safetensors"))


def test_fault_25_a_worker_killed_while_it_waits_costs_no_step(
    waiting: str, disk: SmallDisk, workers: FaultWorkers
) -> None:
    worker = workers.processes["first"].pid
    workers.kill("first")
    workers.wait_for(lambda: not trainers_of(worker), "the end of the trainer", 10)
    start(workers, disk, "second")
    workers.wait_for(lambda: workers.job(waiting).attempt == 2, "the second attempt", PATIENCE, waiting)
    workers.wait_for(lambda: stands_still(workers, waiting), "the wait of the second attempt", PATIENCE, waiting)
    disk.empty()
    finished(workers, waiting)
    assert_undisturbed(workers, waiting, undisturbed(workers))


def test_fault_25_a_refused_write_is_repeated(disk: SmallDisk, workers: FaultWorkers) -> None:
    """Without a disk reserve, the trainer notices that the disk is full only when a write fails."""
    job_id = workers.submit(payload={"config": {**CONFIG, "checkpoint": {"every_steps": 20, "keep_last": 2}}})
    start(workers, disk, reserve_mb=0)
    workers.wait_for(lambda: (workers.job(job_id).progress_step or 0) > 40, "forty steps", PATIENCE, job_id)
    [trainer] = trainers_of(workers.processes["first"].pid)
    refuse(disk, trainer.pid)
    workers.wait_for(lambda: stands_still(workers, job_id), "the wait", 60, job_id)
    assert not list((workers.experiment(job_id) / "checkpoints").glob(".tmp-*")), (
        "the partial checkpoint is removed at once"
    )
    failed = details(workers, job_id, "checkpoint_failed")
    assert all("cannot be written" in one["reason"] and "free some space" in one["reason"] for one in failed)
    disk.empty()
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    finished(workers, job_id)
    assert workers.job(job_id).attempt == 1
    assert_undisturbed(workers, job_id, undisturbed(workers))


def test_fault_25_a_stop_where_nothing_fits_ends_with_the_newest_checkpoint(
    disk: SmallDisk, workers: FaultWorkers
) -> None:
    job_id = workers.submit(payload={"config": {**CONFIG, "checkpoint": {"every_steps": 20, "keep_last": 2}}})
    start(workers, disk)
    workers.wait_for(lambda: (workers.job(job_id).progress_step or 0) > 40, "forty steps", PATIENCE, job_id)
    [trainer] = trainers_of(workers.processes["first"].pid)
    refuse(disk, trainer.pid)
    workers.wait_for(lambda: stands_still(workers, job_id), "the wait", 30, job_id)
    workers.signal(job_id, "stop")
    stopped = workers.wait_status(job_id, "cancelled", 20)
    left = details(workers, job_id, "checkpoint_failed")[-1]
    assert stopped.checkpoint_step == left["left_with_step"]
    assert stopped.progress_step == left["left_with_step"] + left["steps_lost"], "the event counts the lost steps"
    disk.empty()
    again = workers.submit(payload={"config": CONFIG}, parent_id=job_id)
    finished(workers, again)
