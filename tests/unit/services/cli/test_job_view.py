"""The live view of a job derives its state from the job's events."""

from __future__ import annotations

from typing import Any

import pytest

from common.metrics.names import LOSS, TOKENS_PER_SECOND, VALIDATION_LOSS
from services.cli.views.job import JobView
from tests.unit import api_documents as documents
from tidal_client import Job, StreamEvent


def job(**changes: Any) -> Job:
    payload = {"config": {"training": {"max_seconds": 100.0}}}
    return Job.model_validate(documents.job(**{"status": "running", "attempt": 1, "payload": payload, **changes}))


def points(*steps: int, **values: float) -> StreamEvent:
    listed = [{"step": step, "time": "2026-01-31T12:00:00Z", "attempt": 1, "values": values} for step in steps]
    return StreamEvent("metrics", {"points": listed})


def test_metrics_move_the_step_and_the_numbers() -> None:
    view = JobView(job(), total_steps=200)
    view.apply(points(49, 50, **{LOSS: 4.5, TOKENS_PER_SECOND: 12_345.0}))
    view.apply(points(50, **{VALIDATION_LOSS: 4.75}))
    assert view.step == 50
    assert view.fraction == 0.25
    assert view.summary() == "loss 4.500 · validation 4.750 · 12.3k tokens/s"


def test_a_loss_that_is_not_finite_replaces_the_previous_one() -> None:
    view = JobView(job())
    for step, loss in ((2, 4.0), (3, None)):
        view.apply(
            StreamEvent("metrics", {"points": [{"step": step, "values": {LOSS: loss, TOKENS_PER_SECOND: None}}]})
        )
    assert view.summary() == "loss not finite"


def test_the_time_limit_counts_from_the_first_step() -> None:
    now = [1000.0]
    view = JobView(job(), total_steps=10_000, clock=lambda: now[0])
    now[0] = 1050.0  # the time for loading data does not count
    assert view.fraction == 0.0
    view.apply(points(1))
    now[0] = 1075.0
    assert view.fraction == pytest.approx(0.25)
    assert view.seconds_left == pytest.approx(75.0)
    view.apply(StreamEvent("status", {"step": 1, "etaSeconds": 900.0}))
    assert view.seconds_left == pytest.approx(75.0)  # the time limit is reached before the last step
    view.apply(points(5000))
    assert view.fraction == pytest.approx(0.5)  # half of the steps are done, but only a quarter of the time is over
    now[0] = 1200.0
    assert (view.fraction, view.seconds_left) == (1.0, None)


def test_a_status_is_printed_once_and_quiet_ones_are_not() -> None:
    view = JobView(job(status="pending", attempt=0))
    update = {"id": "job_1", "type": "lm-training", "experimentId": "exp", "createdAt": "2026-01-31T12:00:00Z"}
    lines = [
        view.apply(StreamEvent("job-update", {**update, "status": status, "attempt": attempt}))
        for status, attempt in (("provisioning", 1), ("starting", 1), ("running", 1), ("running", 1), ("running", 2))
    ]
    assert lines == [[], [], ["running"], [], ["running (attempt 2)"]]
    assert view.job.payload is not None  # the view keeps the payload, although job-update events have none


def test_a_failure_shows_its_reason() -> None:
    view = JobView(job())
    failed = job(status="failed", error={"code": "cuda_oom", "message": "lower micro_batch_size"}, payload={})
    assert view.update(failed) == ["failed: lower micro_batch_size"]
    assert view.job.ended


def test_updates_of_another_job_are_ignored() -> None:
    view = JobView(job())
    other = {"id": "job_2", "status": "failed", "createdAt": "2026-01-31T12:00:00Z"}
    assert view.apply(StreamEvent("job-update", other)) == []
    assert view.job.status == "running"


def test_a_rewind_moves_back() -> None:
    view = JobView(job())
    view.apply(points(90))
    assert view.apply(StreamEvent("rewind", {"attempt": 2, "step": 60})) == ["attempt 2 continues after step 60"]
    assert view.step == 60


def test_a_wait_for_the_disk_and_its_end_are_shown_with_the_free_and_needed_space() -> None:
    view = JobView(job())
    lacks = {"disk": "experiments", "freeBytes": 12 * 2**20, "neededBytes": 2**30}
    waits = {"phase": "waiting_for_disk", "step": 7, "disk": lacks}
    shown = "waiting for disk space: 12 MiB are free on the disk of the experiments, 1,024 MiB are needed"
    assert view.apply(StreamEvent("status", waits)) == [
        f"{shown}; the job continues automatically when you have freed some space"
    ]
    assert view.apply(StreamEvent("status", waits)) == [] and view.phase == shown
    view.update(job(progress={"phase": "waiting_for_disk", "step": 7}))
    assert view.phase == shown, "the job has less detail than the event and does not replace it"
    assert view.apply(StreamEvent("status", {**waits, "disk": {**lacks, "freeBytes": 0}})) == []
    assert view.phase.startswith("waiting for disk space: 0 MiB")
    assert view.apply(StreamEvent("status", {"phase": "training"})) == [
        "the disk has enough space again; the job continues"
    ]
    assert view.phase == "training"
