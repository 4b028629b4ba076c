"""The text about a job states what happens next, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.config import Settings
from common.db import Job
from common.jobs.what_next import what_next
from tidal_client.vocabulary import JobStatus

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
SETTINGS = Settings(_env_file=None)


def text_for(status: str, **fields: Any) -> str:
    values = {
        "id": "job_1",
        "status": status,
        "desired_state": "run",
        "cancel_requested": False,
        "infra_restarts": 0,
        "user_failures": 0,
        "attempt": 1,
        "lease_owner": "worker-1",
        "lease_expires_at": NOW + timedelta(seconds=55),
    }
    return what_next(Job(**{**values, **fields}), NOW, SETTINGS)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [status for status in JobStatus if status != "failed"])
def test_a_job_that_goes_well_needs_no_warning(status: JobStatus) -> None:
    text = text_for(status, checkpoint_ref="exp/checkpoints/step-000000040", checkpoint_step=40)
    assert "ended" not in text or status is JobStatus.STALE
    assert "overdue" not in text
    if status in ("provisioning", "starting", "running", "completing", "completed"):
        assert text == ""


def test_a_stale_job_shows_when_the_reaper_decides_and_what_follows() -> None:
    text = text_for(
        "stale",
        lease_expires_at=ago(12),
        infra_restarts=1,
        checkpoint_ref="exp/checkpoints/step-000000040",
        checkpoint_step=40,
    )
    assert text == (
        "Worker worker-1 stopped renewing its lease, which expired 12 s ago. The worker may still recover; otherwise, "
        "in 3 s, the job returns to the queue and continues after step 40 (lost attempt 2 of 3 without a new "
        "checkpoint)."
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"infra_restarts": 2}, "the job fails, because this is lost attempt 3 of 3 without a new checkpoint"),
        ({"desired_state": "stop"}, "the job is cancelled, as requested"),
        (
            {},
            "the job returns to the queue and continues from the beginning (lost attempt 1 of 3 without a new "
            "checkpoint)",
        ),
    ],
)
def test_the_announced_outcome_is_that_of_the_reaper(fields: dict[str, Any], expected: str) -> None:
    assert expected in text_for("stale", lease_expires_at=ago(2), **fields)


def test_an_overdue_decision_points_to_the_health_process() -> None:
    assert "health process" not in text_for("stale", lease_expires_at=ago(20))
    assert "health process" in text_for("stale", lease_expires_at=ago(120))
    assert "health process" in text_for("running", lease_expires_at=ago(120))


def test_a_worker_that_is_cut_off_is_seen_before_its_job_is_stale() -> None:
    text = text_for("running", lease_expires_at=NOW + timedelta(seconds=15))
    assert text == (
        "Worker worker-1 last renewed its lease 45 s ago; its trainer is suspended, and the job becomes stale in 15 s."
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"desired_state": "pause", "desired_at": ago(20)}, "SIGTERM follows in 40 s and SIGKILL in 70 s"),
        ({"desired_state": "pause", "desired_at": ago(70)}, "killed in 20 s"),
        ({"desired_state": "stop", "desired_at": ago(20), "cancel_requested": True}, "Asked to cancel 20 s ago"),
        ({"desired_state": "stop", "desired_at": ago(20), "cancel_requested": True}, "killed in 40 s"),
        ({"desired_state": "stop", "desired_at": ago(100)}, "is being killed"),
        ({"desired_state": "complete", "desired_at": ago(100)}, "without a time limit"),
    ],
)
def test_a_request_shows_its_deadline(fields: dict[str, Any], expected: str) -> None:
    assert expected in text_for("running", **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"attempt": 0}, "The job is claimed as soon as a worker and a slot of its type are free."),
        (
            {"infra_restarts": 2, "not_before": NOW + timedelta(seconds=5)},
            "After 2 lost attempts without a new checkpoint, the job is claimed in 5 s at the earliest (notBefore), "
            "and then continues from the beginning.",
        ),
        (
            {"desired_state": "pause"},
            "A pause was requested: the next attempt pauses once it has a checkpoint. Resume withdraws the request.",
        ),
    ],
)
def test_a_pending_job_shows_what_it_waits_for(fields: dict[str, Any], expected: str) -> None:
    assert text_for("pending", lease_owner=None, lease_expires_at=None, **fields) == expected


def test_a_job_that_has_ended_shows_how_to_continue() -> None:
    checkpoint = {"checkpoint_ref": "exp/checkpoints/step-000000040", "checkpoint_step": 40}
    assert text_for("cancelled", **checkpoint) == "A new job with resumeFrom job_1 continues after step 40."
    assert text_for("cancelled") == "The job has no checkpoint."
    parents = {"checkpoint_ref": "exp/checkpoints/step-000000040", "parent_id": "job_0"}
    assert text_for("cancelled", **parents) == "A new job with resumeFrom job_1 continues from step-000000040 of job_0."
    assert text_for("failed", error_code="training_diverged", **checkpoint) == (
        "A loss or gradient was not finite: lower the learning rate or warm up for longer. "
        "A new job with resumeFrom job_1 continues after step 40."
    )
    assert text_for("failed", error_code="cuda_out_of_memory", **checkpoint) == (
        "Lower training.micro_batch_size, model.context_length or the model's size. "
        "A new job with resumeFrom job_1 continues after step 40."
    )


def test_a_job_that_waits_for_its_disk_shows_the_figures() -> None:
    job = Job(status="running", desired_state="run", lease_expires_at=NOW + timedelta(seconds=55))
    job.progress_phase = "waiting_for_disk"
    shortage = "12 MiB are free on the disk of the experiments, 1,024 MiB are needed"
    text = what_next(job, NOW, SETTINGS, shortage=shortage)
    start = "The job waits for free space on a disk"
    assert text.startswith(f"{start}: {shortage}. Free some space; the job then continues by itself")
    assert what_next(job, NOW, SETTINGS).startswith(f"{start}. Free some space")
    job.desired_state, job.desired_at, job.cancel_requested = "pause", NOW, False
    assert "Asked to pause" in what_next(job, NOW, SETTINGS, shortage=shortage)
