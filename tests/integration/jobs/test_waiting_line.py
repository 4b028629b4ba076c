"""Positions and predicted starts of waiting jobs follow from the database, the limits and the number of workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.jobs.queue import complete_job, record_progress
from common.jobs.reaper import mark_stale
from common.jobs.signals import request_signal
from common.jobs.waiting_line import QueuePosition, list_waiting_jobs, queue_positions, usual_seconds
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus, Signal

S = JobStatus


def line(job_queue: JobQueue, workers: int | None) -> list[QueuePosition]:
    places: list[QueuePosition] = job_queue.do(list_waiting_jobs, job_queue.settings, "training", workers)
    return places


def starts(job_queue: JobQueue, workers: int | None = 1) -> dict[str, float | None]:
    """Return {job id: predicted whole seconds until the start}, by the clock of the database."""
    now = job_queue.sql("SELECT now()")
    return {
        place.job_id: None if place.predicted_start is None else round((place.predicted_start - now).total_seconds())
        for place in line(job_queue, workers)
    }


def finish(job_queue: JobQueue, seconds: int, job_type: str = "lm-training") -> None:
    """Create a completed job that took `seconds`."""
    job_id = job_queue.bring(S.RUNNING, job_type)
    job_queue.do(complete_job, job_id, 1)
    job_queue.sql(
        "UPDATE jobs SET started_at = finished_at - make_interval(secs => :s) WHERE id = :id", s=seconds, id=job_id
    )


def test_positions_count_those_of_the_same_type_ahead(job_queue: JobQueue) -> None:
    running = job_queue.submit()
    job_queue.claim()
    a, b, urgent, other = (
        job_queue.submit(),
        job_queue.submit(),
        job_queue.submit(priority=9),
        job_queue.submit("rl-training"),
    )
    assert [(place.job_id, place.position) for place in line(job_queue, 1)] == [(urgent, 1), (a, 2), (b, 3), (other, 1)]
    places = job_queue.do(queue_positions, job_queue.settings, lambda _: 1, [b, running])
    assert {job_id: place.position for job_id, place in places.items()} == {b: 3}
    assert job_queue.do(queue_positions, job_queue.settings, lambda _: 1, []) == {}


def test_the_usual_time_is_the_median_of_the_last_twenty_completed(job_queue: JobQueue) -> None:
    assert job_queue.do(usual_seconds) == {}
    for seconds in (9000, 9000, *([10] * 10), *([30] * 10)):
        finish(job_queue, seconds)
    finish(job_queue, 7, "evaluation")
    failed = job_queue.bring(S.FAILED)
    assert job_queue.job(failed).finished_at is not None
    assert job_queue.do(usual_seconds) == {"lm-training": 20.0, "evaluation": 7.0}


def test_the_eta_of_the_running_job_and_the_usual_time_make_the_prediction(job_queue: JobQueue) -> None:
    finish(job_queue, 100)
    running = job_queue.bring(S.RUNNING)
    job_queue.do(record_progress, running, 1, step=5, total_steps=10, eta_seconds=50.0)
    first, second, evaluation = job_queue.submit(), job_queue.submit(), job_queue.submit("evaluation")
    job_queue.sql("UPDATE jobs SET progress_at = now() WHERE id = :id", id=running)  # the submissions took some time
    assert starts(job_queue, 2) == {first: 50, second: 150, evaluation: 0}
    assert starts(job_queue, 1) == {
        first: 50,
        second: 150,
        evaluation: 250,
    }  # a single worker runs the jobs of all types
    job_queue.sql("UPDATE jobs SET progress_at = now() - interval '20 s' WHERE id = :id", id=running)
    assert starts(job_queue)[first] == 30
    job_queue.do(request_signal, running, Signal.STOP)
    assert starts(job_queue)[first] == 0


def test_before_the_first_eta_the_usual_time_is_used(job_queue: JobQueue) -> None:
    finish(job_queue, 100)
    running = job_queue.bring(S.STARTING)
    job_queue.sql("UPDATE jobs SET started_at = now() - interval '40 s' WHERE id = :id", id=running)
    waiting = job_queue.submit()
    assert starts(job_queue) == {waiting: 60}


def test_without_a_known_duration_there_is_no_prediction(job_queue: JobQueue) -> None:
    job_queue.bring(S.RUNNING)
    waiting = job_queue.submit()
    # The running job reports no remaining time, and no job of its type has finished yet.
    assert starts(job_queue) == {waiting: None}
    assert starts(job_queue, None) == {waiting: None}
    assert starts(job_queue, 0) == {waiting: None}


def test_jobs_behind_a_stale_job_have_no_prediction(job_queue: JobQueue) -> None:
    finish(job_queue, 100)
    running = job_queue.bring(S.RUNNING)
    job_queue.lapse(running)
    job_queue.do(mark_stale)
    first, other = job_queue.submit(), job_queue.submit("evaluation")
    assert starts(job_queue) == {first: None, other: 0}


@pytest.mark.parametrize(("limit", "expected"), [(1, 100), (2, 0), (0, 0)])
def test_limits_delay_the_starts(job_queue: JobQueue, limit: int, expected: int) -> None:
    finish(job_queue, 100)
    job_queue = JobQueue(job_queue.sessions, job_queue.settings.model_copy(update={"lm_training_concurrency": limit}))
    job_queue.submit()
    second = job_queue.submit()
    assert starts(job_queue, 2)[second] == expected


def test_a_job_does_not_start_before_its_time(job_queue: JobQueue) -> None:
    later = job_queue.submit(not_before=datetime.now(UTC) + timedelta(seconds=600), priority=100)
    now = job_queue.submit("evaluation")
    found = starts(job_queue, 2)
    assert found[now] == 0
    assert found[later] is not None and 595 <= found[later] <= 600


def test_jobs_beyond_the_horizon_have_a_position_but_no_prediction(
    job_queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.jobs.waiting_line.HORIZON", 2)
    finish(job_queue, 100)
    finish(job_queue, 10, "evaluation")
    jobs = [job_queue.submit() for _ in range(4)]
    evaluations = [job_queue.submit("evaluation", priority=-1) for _ in range(2)]
    # The third job of `jobs` comes before the evaluations.
    assert starts(job_queue) == {jobs[0]: 0, jobs[1]: 100, **dict.fromkeys(evaluations)}
    assert starts(job_queue, 2) == {jobs[0]: 0, jobs[1]: 100, evaluations[0]: 0, evaluations[1]: 10}
    places = job_queue.do(queue_positions, job_queue.settings, lambda _: 1, jobs)
    assert [places[job_id].position for job_id in jobs] == [1, 2, 3, 4]
    assert [places[job_id].predicted_start is None for job_id in jobs] == [False, False, True, True]
