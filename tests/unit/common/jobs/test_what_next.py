"""Whoever looks at a job is told what happens next, and when."""

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


def said(status: str, **fields: Any) -> str:
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
    text = said(status, checkpoint_ref="exp/checkpoints/step-000000040", checkpoint_step=40)
    assert "ended" not in text or status is JobStatus.STALE
    assert "overdue" not in text
    if status in ("provisioning", "starting", "running", "completing", "completed"):
        assert text == ""


def test_a_stale_job_is_told_when_it_is_judged_and_what_then() -> None:
    text = said(
        "stale",
        lease_expires_at=ago(12),
        infra_restarts=1,
        checkpoint_ref="exp/checkpoints/step-000000040",
        checkpoint_step=40,
    )
    assert text == (
        "Worker worker-1 stopped renewing its lease, which ended 12 s ago. It may still come back; judged in 3 s, then "
        "back to the queue to go on after step 40 (loss 2 of 3 without a new checkpoint)."
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"infra_restarts": 2}, "then failed, because this is loss 3 of 3 without a new checkpoint"),
        ({"desired_state": "stop"}, "then cancelled, as was asked"),
        ({}, "then back to the queue to go on from the beginning (loss 1 of 3 without a new checkpoint)"),
    ],
)
def test_the_verdict_is_that_of_the_reaper(fields: dict[str, Any], expected: str) -> None:
    assert expected in said("stale", lease_expires_at=ago(2), **fields)


def test_a_judgement_that_does_not_come_points_to_the_health_process() -> None:
    assert "health process" not in said("stale", lease_expires_at=ago(20))
    assert "health process" in said("stale", lease_expires_at=ago(120))
    assert "health process" in said("running", lease_expires_at=ago(120))


def test_a_worker_that_is_cut_off_is_seen_before_its_job_is_stale() -> None:
    text = said("running", lease_expires_at=NOW + timedelta(seconds=15))
    assert text == (
        "Worker worker-1 last renewed its lease 45 s ago; its trainer stands still, and it is stale in 15 s."
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"desired_state": "pause", "desired_at": ago(20)}, "SIGTERM in 40 s and SIGKILL in 70 s"),
        ({"desired_state": "pause", "desired_at": ago(70)}, "killed in 20 s"),
        ({"desired_state": "stop", "desired_at": ago(20), "cancel_requested": True}, "Asked to cancel 20 s ago"),
        ({"desired_state": "stop", "desired_at": ago(20), "cancel_requested": True}, "killed in 40 s"),
        ({"desired_state": "stop", "desired_at": ago(100)}, "is being killed"),
        ({"desired_state": "complete", "desired_at": ago(100)}, "takes as long as it takes"),
    ],
)
def test_a_wish_has_its_deadline(fields: dict[str, Any], expected: str) -> None:
    assert expected in said("running", **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"attempt": 0}, "It is claimed as soon as a worker and a slot of its type are free."),
        (
            {"infra_restarts": 2, "not_before": NOW + timedelta(seconds=5)},
            "After 2 lost attempts without a new checkpoint it is claimed in 5 s at the earliest, "
            "as its notBefore asks, to go on from the beginning.",
        ),
        (
            {"desired_state": "pause"},
            "It is asked to pause and does so at its first safe point; resume withdraws that.",
        ),
    ],
)
def test_a_pending_job_is_told_what_it_waits_for(fields: dict[str, Any], expected: str) -> None:
    assert said("pending", lease_owner=None, lease_expires_at=None, **fields) == expected


def test_what_has_ended_says_how_to_go_on() -> None:
    left = {"checkpoint_ref": "exp/checkpoints/step-000000040", "checkpoint_step": 40}
    assert said("cancelled", **left) == "A new job with resumeFrom job_1 goes on after step 40."
    assert said("cancelled") == "It left no checkpoint."
    parents = {"checkpoint_ref": "exp/checkpoints/step-000000040", "parent_id": "job_0"}
    assert said("cancelled", **parents) == "A new job with resumeFrom job_1 goes on at step-000000040 of job_0."
    assert said("failed", error_code="training_diverged", **left) == (
        "A loss or gradient was not finite: lower the learning rate or warm up for longer. "
        "A new job with resumeFrom job_1 goes on after step 40."
    )
    assert said("failed", error_code="cuda_out_of_memory", **left) == (
        "Lower training.micro_batch_size, model.context_length or the model's size. "
        "A new job with resumeFrom job_1 goes on after step 40."
    )


def test_a_job_that_waits_for_its_disk_says_so_with_figures() -> None:
    job = Job(status="running", desired_state="run", lease_expires_at=NOW + timedelta(seconds=55))
    job.progress_phase = "waiting_for_disk"
    lacks = "12 MiB are free on the disk of the experiments, 1,024 MiB are needed"
    text = what_next(job, NOW, SETTINGS, shortage=lacks)
    assert text.startswith(f"It waits for room on a disk: {lacks}. Free some space; the job then goes on by itself")
    assert what_next(job, NOW, SETTINGS).startswith("It waits for room on a disk. Free some space")
    job.desired_state, job.desired_at, job.cancel_requested = "pause", NOW, False
    assert "Asked to pause" in what_next(job, NOW, SETTINGS, shortage=lacks)
