"""The row of a pruned checkpoint is deleted, but never that of the checkpoint from which the job would resume."""

from __future__ import annotations

import pytest

from common.errors import LeaseLostError
from common.jobs.queue import (
    keep_checkpoints,
    register_artifact,
    register_checkpoint,
    release_job,
    withdraw_checkpoints,
)
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus


def test_rows_follow_the_folders(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING)
    for step in (5, 10, 15):
        job_queue.do(register_checkpoint, job_id, 1, name=f"step-{step}", step=step, sha256="00")
    job_queue.do(register_artifact, job_id, 1, name="model.pth", kind="model")
    job_queue.do(keep_checkpoints, job_id, 1, names=["checkpoints/step-5", "checkpoints/step-15"])
    assert _names(job_queue) == ["checkpoints/step-15", "checkpoints/step-5", "model.pth"]
    job_queue.do(keep_checkpoints, job_id, 1, names=["checkpoints/step-15"])
    job_queue.do(keep_checkpoints, job_id, 1, names=["checkpoints/step-15"])
    assert _names(job_queue) == ["checkpoints/step-15", "model.pth"]


def test_the_row_of_the_registered_checkpoint_stays_whatever_the_trainer_reports(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING)
    for step in (5, 10):
        job_queue.do(register_checkpoint, job_id, 1, name=f"step-{step}", step=step, sha256="00")
    job_queue.do(keep_checkpoints, job_id, 1, names=[])
    assert _names(job_queue) == ["checkpoints/step-10"]
    assert job_queue.job(job_id).checkpoint_ref == f"{job_queue.job(job_id).experiment_id}/checkpoints/step-10"


def test_a_job_that_diverged_resumes_from_the_checkpoint_before(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING)
    for step in (5, 10):
        job_queue.do(register_checkpoint, job_id, 1, name=f"step-{step}", step=step, sha256="00")
    names = ["checkpoints/step-10"]
    for _ in range(2):  # a worker repeats the call if the reply to its commit was lost
        job_queue.do(withdraw_checkpoints, job_id, 1, names=names, newest="checkpoints/step-5", newest_step=5)
    assert _names(job_queue) == ["checkpoints/step-5"]
    job = job_queue.job(job_id)
    assert (job.checkpoint_ref, job.checkpoint_step) == (f"{job.experiment_id}/checkpoints/step-5", 5)
    job_queue.do(withdraw_checkpoints, job_id, 1, names=["checkpoints/step-5"], newest=None)
    job = job_queue.job(job_id)
    assert (_names(job_queue), job.checkpoint_ref, job.checkpoint_step) == ([], None, None)


def test_an_old_attempt_deletes_no_rows(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(JobStatus.RUNNING)
    for step in (5, 10):
        job_queue.do(register_checkpoint, job_id, 1, name=f"step-{step}", step=step, sha256="00")
    job_queue.do(release_job, job_id, 1)
    second = job_queue.claim("worker-2")
    assert second is not None and second.attempt == 2
    with pytest.raises(LeaseLostError):
        job_queue.do(keep_checkpoints, job_id, 1, names=[])
    assert _names(job_queue) == ["checkpoints/step-10", "checkpoints/step-5"]


def test_other_experiments_keep_their_rows(job_queue: JobQueue) -> None:
    first = job_queue.bring(JobStatus.COMPLETED, checkpoint=True)
    second = job_queue.bring(JobStatus.RUNNING)
    job_queue.do(register_checkpoint, second, 1, name="step-7", step=7, sha256="00")
    job_queue.do(keep_checkpoints, second, 1, names=["checkpoints/step-7"])
    assert _names(job_queue) == ["checkpoints/step-5", "checkpoints/step-7"]
    assert job_queue.job(first).checkpoint_ref is not None


def _names(job_queue: JobQueue) -> list[str]:
    return sorted(name for (name,) in job_queue.rows("SELECT name FROM checkpoints"))
