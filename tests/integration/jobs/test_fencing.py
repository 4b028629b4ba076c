"""The attempt number is the fencing token: an attempt that lost its job cannot write anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from common.errors import ConflictError, LeaseLostError
from common.jobs.lease import read_requested_state, renew
from common.jobs.queue import (
    complete_job,
    fail_job,
    pause_job,
    record_event,
    record_progress,
    register_artifact,
    register_checkpoint,
    release_job,
    transition,
)
from common.jobs.retry import Fault
from common.jobs.signals import request_cancel, request_signal
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import ACTIVE, JobStatus, Signal

S = JobStatus

OWNER_WRITES: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (transition, (S.STARTING,), {}),
    (complete_job, (), {}),
    (pause_job, (), {}),
    (release_job, (), {}),
    (fail_job, (Fault.USER_ERROR, "boom"), {}),
    (record_event, ("resume_inexact",), {}),
    (record_progress, (), {"step": 1}),
    (register_checkpoint, (), {"name": "step-1", "step": 1, "sha256": "00"}),
    (register_artifact, (), {"name": "model.pth", "kind": "model"}),
    (renew, (), {}),
    (read_requested_state, (), {}),
]


@pytest.mark.parametrize(
    ("write", "arguments", "named"), OWNER_WRITES, ids=lambda value: getattr(value, "__name__", "")
)
def test_an_old_attempt_writes_nothing(
    job_queue: JobQueue, write: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    job_id = job_queue.bring(S.PROVISIONING)
    job_queue.do(release_job, job_id, 1)
    second = job_queue.claim("worker-2")
    assert second is not None and second.attempt == 2
    events = job_queue.history(job_id)
    row = job_queue.sql("SELECT to_jsonb(jobs) FROM jobs")
    with pytest.raises(LeaseLostError):
        job_queue.do(write, job_id, 1, *arguments, **named)
    assert job_queue.sql("SELECT to_jsonb(jobs) FROM jobs") == row
    assert job_queue.history(job_id) == events
    assert job_queue.sql("SELECT count(*) FROM checkpoints") == 0


def test_files_of_a_newer_attempt_are_not_overwritten_by_an_older_one(job_queue: JobQueue) -> None:
    """Attempt 1 writes nothing, neither while attempt 2 owns the job nor after attempt 2 has completed it."""
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(register_artifact, job_id, 1, name="model.pth", kind="model", sha256="01")
    job_queue.do(register_checkpoint, job_id, 1, name="step-5", step=5, sha256="01")
    job_queue.do(release_job, job_id, 1)
    assert job_queue.claim("worker-2") is not None
    job_queue.do(register_artifact, job_id, 2, name="model.pth", kind="model", sha256="02")
    job_queue.do(register_checkpoint, job_id, 2, name="step-5", step=5, sha256="02")
    rows = job_queue.rows("SELECT name, attempt, sha256 FROM checkpoints ORDER BY name")
    assert rows == [("checkpoints/step-5", 2, "02"), ("model.pth", 2, "02")]
    for _ in range(2):
        for write, named in (
            (register_artifact, {"name": "model.pth", "kind": "model", "sha256": "66"}),
            (register_artifact, {"name": "late.pth", "kind": "model", "sha256": "66"}),
            (register_checkpoint, {"name": "step-5", "step": 5, "sha256": "66"}),
            (register_checkpoint, {"name": "step-9", "step": 9, "sha256": "66"}),
        ):
            with pytest.raises(LeaseLostError):
                job_queue.do(write, job_id, 1, **named)
        assert job_queue.rows("SELECT name, attempt, sha256 FROM checkpoints ORDER BY name") == rows
        job_queue.do(complete_job, job_id, 2)
    assert job_queue.job(job_id).checkpoint_step == 5


def test_a_deleted_job_is_a_lost_lease(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.sql("DELETE FROM experiments")
    with pytest.raises(LeaseLostError):
        job_queue.do(complete_job, job_id, 1)
    assert job_queue.sql("SELECT count(*) FROM job_events") == 0


def test_completing_writes_every_status_on_the_way(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.COMPLETING)
    assert job_queue.do(complete_job, job_id, 1) == S.COMPLETED
    job = job_queue.job(job_id)
    assert (job.lease_owner, job.lease_expires_at) == (None, None)
    assert job.finished_at is not None
    assert [(before, after) for _, before, after in job_queue.history(job_id)] == [
        (None, "pending"),
        ("pending", "provisioning"),
        ("provisioning", "starting"),
        ("starting", "running"),
        ("running", "completing"),
        ("completing", "completed"),
    ]


def test_repeating_a_write_after_a_lost_answer_changes_nothing(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(transition, job_id, 1, S.RUNNING)
    assert job_queue.do(complete_job, job_id, 1) == S.COMPLETED
    events = job_queue.history(job_id)
    assert job_queue.do(complete_job, job_id, 1) == S.COMPLETED
    assert job_queue.history(job_id) == events
    other = job_queue.bring(S.RUNNING)
    assert [job_queue.do(release_job, other, 1), job_queue.do(release_job, other, 1)] == [S.PENDING, S.PENDING]


@pytest.mark.parametrize("signal", [None, Signal.PAUSE, Signal.STOP])
@pytest.mark.parametrize(
    ("end", "arguments"),
    [
        (complete_job, ()),
        (pause_job, ()),
        (release_job, ()),
        (fail_job, (Fault.WORKER_LOST, "")),
        (fail_job, (Fault.USER_ERROR, "")),
    ],
)
def test_an_end_repeated_after_a_lost_answer_is_no_lost_lease(
    job_queue: JobQueue, signal: Signal | None, end: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    job_id = job_queue.bring(S.RUNNING, checkpoint=True)
    if signal is not None:
        job_queue.do(request_signal, job_id, signal)
    written = job_queue.do(end, job_id, 1, *arguments)
    events = job_queue.history(job_id)
    assert job_queue.do(end, job_id, 1, *arguments) == written == job_queue.status(job_id)
    assert job_queue.history(job_id) == events


def test_a_transition_outside_the_table_is_refused(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.PROVISIONING)
    with pytest.raises(ValueError, match="from provisioning to completed"):
        job_queue.do(transition, job_id, 1, S.COMPLETED)
    assert job_queue.status(job_id) == "provisioning"


def test_a_stop_overrides_completion(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.COMPLETING)
    job_queue.do(request_signal, job_id, Signal.STOP)
    with pytest.raises(ConflictError, match="a stop was requested"):
        job_queue.do(transition, job_id, 1, S.COMPLETED)
    assert job_queue.do(complete_job, job_id, 1) == S.CANCELLED
    assert job_queue.history(job_id)[-2:] == [
        ("stopping", "completing", "stopping"),
        ("cancelled", "stopping", "cancelled"),
    ]


@pytest.mark.parametrize("end", [release_job, pause_job])
def test_a_stop_overrides_a_release_and_a_pause(job_queue: JobQueue, end: Callable[..., Any]) -> None:
    job_id = job_queue.bring(S.RUNNING, checkpoint=True)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    job_queue.do(request_cancel, job_id)
    assert job_queue.do(end, job_id, 1) == S.CANCELLED


def test_pause_needs_the_request_and_a_checkpoint(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    with pytest.raises(ConflictError, match="desired state is run"):
        job_queue.do(transition, job_id, 1, S.PAUSED)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    with pytest.raises(ConflictError, match="no checkpoint"):
        job_queue.do(transition, job_id, 1, S.PAUSED)
    job_queue.do(register_checkpoint, job_id, 1, name="step-9", step=9, sha256="00")
    assert job_queue.do(pause_job, job_id, 1) == S.PAUSED


def test_a_withdrawn_pause_goes_back_to_the_queue(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING, checkpoint=True)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    job_queue.do(request_signal, job_id, Signal.RESUME)
    assert job_queue.do(pause_job, job_id, 1) == S.PENDING
    assert job_queue.claim() is not None


def test_a_drained_job_that_was_to_pause_is_paused(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING, checkpoint=True)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    assert job_queue.do(release_job, job_id, 1) == S.PAUSED


@pytest.mark.parametrize("status", sorted(ACTIVE - {S.STOPPING}))
def test_a_drain_requeues_the_job_from_every_status(job_queue: JobQueue, status: JobStatus) -> None:
    job_id = job_queue.bring(status)
    assert job_queue.do(release_job, job_id, 1, reason="drain") == S.PENDING
    job = job_queue.job(job_id)
    assert (job.attempt, job.lease_owner, job.infra_restarts, job.user_failures) == (1, None, 0, 0)


def test_user_errors_fail_at_once_with_the_reason(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    assert (
        job_queue.do(
            fail_job, job_id, 1, Fault.CUDA_OOM, "lower training.micro_batch_size", settings=job_queue.settings
        )
        == S.FAILED
    )
    job = job_queue.job(job_id)
    assert (job.error_code, job.error_message) == ("cuda_out_of_memory", "lower training.micro_batch_size")
    assert (job.user_failures, job.infra_restarts) == (1, 0)


def test_the_third_lost_attempt_without_a_new_checkpoint_fails(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    outcomes = [job_queue.do(fail_job, job_id, 1, Fault.OOM_KILLED, "killed", settings=job_queue.settings)]
    for attempt in (2, 3):
        job_queue.sql("UPDATE jobs SET not_before = NULL")
        assert job_queue.claim() is not None
        outcomes.append(
            job_queue.do(fail_job, job_id, attempt, Fault.OOM_KILLED, "killed", settings=job_queue.settings)
        )
    assert outcomes == [S.PENDING, S.PENDING, S.FAILED]
    assert job_queue.job(job_id).error_code == "out_of_memory"


def test_only_a_later_checkpoint_restores_the_budget(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING, checkpoint=True)  # the checkpoint is at step 5
    job_queue.sql("UPDATE jobs SET infra_restarts = 2")
    job_queue.do(register_checkpoint, job_id, 1, name="step-5", step=5, sha256="11")
    assert job_queue.job(job_id).infra_restarts == 2
    reference = job_queue.do(register_checkpoint, job_id, 1, name="step-6", step=6, sha256="22")
    job = job_queue.job(job_id)
    assert (job.infra_restarts, job.checkpoint_step, job.checkpoint_ref) == (0, 6, reference)
    assert reference == f"{job.experiment_id}/checkpoints/step-6"
    assert job_queue.sql("SELECT sha256 FROM checkpoints WHERE name = 'checkpoints/step-5'") == "11"


def test_progress_is_shown_without_an_event(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    before = job_queue.history(job_id)
    job_queue.do(record_progress, job_id, 1, step=3, total_steps=10, eta_seconds=7.5, phase="training")
    job = job_queue.job(job_id)
    assert (job.progress_step, job.progress_total_steps, job.progress_eta_seconds) == (3, 10, 7.5)
    assert job.progress_phase == "training"
    assert job_queue.history(job_id) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET status = 'pending', finished_at = NULL",
        "UPDATE jobs SET status = 'failed', error_code = 'x'",
        "UPDATE jobs SET attempt = attempt - 1",
        "UPDATE jobs SET type = 'rl-training'",
        "UPDATE jobs SET lease_owner = 'x', lease_expires_at = now()",
        "UPDATE jobs SET priority = 101",
        "UPDATE jobs SET desired_state = 'stop'",
        "INSERT INTO job_events (job_id, attempt, event, actor, to_status)"
        " SELECT id, 1, 'failed', 'api', 'failed' FROM jobs",
    ],
)
def test_the_database_itself_refuses_to_break_the_rules(job_queue: JobQueue, statement: str) -> None:
    job_queue.bring(S.COMPLETED)
    with pytest.raises(IntegrityError):
        job_queue.sql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET status = 'paused', lease_owner = NULL, lease_expires_at = NULL",
        "UPDATE jobs SET lease_owner = NULL",
        "UPDATE jobs SET status = 'stale'",
        "UPDATE jobs SET status = 'stopping'",
        "UPDATE jobs SET status = 'unknown'",
        "UPDATE jobs SET status = 'completed', lease_owner = NULL, lease_expires_at = NULL",
        "UPDATE jobs SET status = 'pending'",
    ],
)
def test_a_transition_must_set_all_columns_of_its_target(job_queue: JobQueue, statement: str) -> None:
    job_queue.bring(S.RUNNING)
    with pytest.raises(IntegrityError):
        job_queue.sql(statement)


def test_a_checkpoint_reported_again_is_unchanged_and_a_new_one_is_registered(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(register_checkpoint, job_id, 1, name="step-5", step=5, sha256="05")
    job_queue.do(release_job, job_id, 1)
    assert job_queue.claim("worker-2") is not None
    events = job_queue.history(job_id)
    for _ in range(2):
        job_queue.do(register_checkpoint, job_id, 2, name="step-5", step=5, sha256="05")
    assert job_queue.history(job_id) == events
    assert job_queue.rows("SELECT name, attempt FROM checkpoints") == [("checkpoints/step-5", 1)]
    job_queue.do(register_checkpoint, job_id, 2, name="step-6", step=6, sha256="06")
    assert job_queue.job(job_id).checkpoint_ref == f"{job_queue.job(job_id).experiment_id}/checkpoints/step-6"
    assert job_queue.job(job_id).checkpoint_step == 6
