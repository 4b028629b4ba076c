"""Positions and predicted starts of waiting jobs follow from the database, the limits and the number of workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.jobs.queue import complete_job, record_progress
from common.jobs.reaper import mark_stale
from common.jobs.signals import request_signal
from common.jobs.waiting_line import QueuePosition, list_waiting_jobs, queue_positions, usual_seconds
from tests.integration.jobs.desk import Desk
from tidal_client.vocabulary import JobStatus, Signal

S = JobStatus


def line(desk: Desk, workers: int | None) -> list[QueuePosition]:
    places: list[QueuePosition] = desk.do(list_waiting_jobs, desk.settings, "training", workers)
    return places


def starts(desk: Desk, workers: int | None = 1) -> dict[str, float | None]:
    """Return {job id: predicted whole seconds until the start}, by the clock of the database."""
    now = desk.sql("SELECT now()")
    return {
        place.job_id: None if place.predicted_start is None else round((place.predicted_start - now).total_seconds())
        for place in line(desk, workers)
    }


def finish(desk: Desk, seconds: int, job_type: str = "lm-training") -> None:
    """Create a completed job that took `seconds`."""
    job_id = desk.bring(S.RUNNING, job_type)
    desk.do(complete_job, job_id, 1)
    desk.sql(
        "UPDATE jobs SET started_at = finished_at - make_interval(secs => :s) WHERE id = :id", s=seconds, id=job_id
    )


def test_positions_count_those_of_the_same_type_ahead(desk: Desk) -> None:
    running = desk.submit()
    desk.claim()
    a, b, urgent, other = desk.submit(), desk.submit(), desk.submit(priority=9), desk.submit("rl-training")
    assert [(place.job_id, place.position) for place in line(desk, 1)] == [(urgent, 1), (a, 2), (b, 3), (other, 1)]
    places = desk.do(queue_positions, desk.settings, lambda _: 1, [b, running])
    assert {job_id: place.position for job_id, place in places.items()} == {b: 3}
    assert desk.do(queue_positions, desk.settings, lambda _: 1, []) == {}


def test_the_usual_time_is_the_median_of_the_last_twenty_completed(desk: Desk) -> None:
    assert desk.do(usual_seconds) == {}
    for seconds in (9000, 9000, *([10] * 10), *([30] * 10)):
        finish(desk, seconds)
    finish(desk, 7, "evaluation")
    failed = desk.bring(S.FAILED)
    assert desk.job(failed).finished_at is not None
    assert desk.do(usual_seconds) == {"lm-training": 20.0, "evaluation": 7.0}


def test_the_eta_of_the_running_job_and_the_usual_time_make_the_prediction(desk: Desk) -> None:
    finish(desk, 100)
    running = desk.bring(S.RUNNING)
    desk.do(record_progress, running, 1, step=5, total_steps=10, eta_seconds=50.0)
    first, second, evaluation = desk.submit(), desk.submit(), desk.submit("evaluation")
    assert starts(desk, 2) == {first: 50, second: 150, evaluation: 0}
    assert starts(desk, 1) == {first: 50, second: 150, evaluation: 250}  # a single worker runs the jobs of all types
    desk.sql("UPDATE jobs SET progress_at = now() - interval '20 s' WHERE id = :id", id=running)
    assert starts(desk)[first] == 30
    desk.do(request_signal, running, Signal.STOP)
    assert starts(desk)[first] == 0


def test_before_the_first_eta_the_usual_time_is_used(desk: Desk) -> None:
    finish(desk, 100)
    running = desk.bring(S.STARTING)
    desk.sql("UPDATE jobs SET started_at = now() - interval '40 s' WHERE id = :id", id=running)
    waiting = desk.submit()
    assert starts(desk) == {waiting: 60}


def test_without_a_known_duration_there_is_no_prediction(desk: Desk) -> None:
    desk.bring(S.RUNNING)
    waiting = desk.submit()
    # The running job reports no remaining time, and no job of its type has finished yet.
    assert starts(desk) == {waiting: None}
    assert starts(desk, None) == {waiting: None}
    assert starts(desk, 0) == {waiting: None}


def test_jobs_behind_a_stale_job_have_no_prediction(desk: Desk) -> None:
    finish(desk, 100)
    running = desk.bring(S.RUNNING)
    desk.lapse(running)
    desk.do(mark_stale)
    first, other = desk.submit(), desk.submit("evaluation")
    assert starts(desk) == {first: None, other: 0}


@pytest.mark.parametrize(("limit", "expected"), [(1, 100), (2, 0), (0, 0)])
def test_limits_delay_the_starts(desk: Desk, limit: int, expected: int) -> None:
    finish(desk, 100)
    desk = Desk(desk.sessions, desk.settings.model_copy(update={"lm_training_concurrency": limit}))
    desk.submit()
    second = desk.submit()
    assert starts(desk, 2)[second] == expected


def test_a_job_does_not_start_before_its_time(desk: Desk) -> None:
    later = desk.submit(not_before=datetime.now(UTC) + timedelta(seconds=600), priority=100)
    now = desk.submit("evaluation")
    found = starts(desk, 2)
    assert found[now] == 0
    assert found[later] is not None and 595 <= found[later] <= 600


def test_jobs_beyond_the_horizon_have_a_position_but_no_prediction(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.jobs.waiting_line.HORIZON", 2)
    finish(desk, 100)
    finish(desk, 10, "evaluation")
    jobs = [desk.submit() for _ in range(4)]
    evaluations = [desk.submit("evaluation", priority=-1) for _ in range(2)]
    # The third job of `jobs` comes before the evaluations.
    assert starts(desk) == {jobs[0]: 0, jobs[1]: 100, **dict.fromkeys(evaluations)}
    assert starts(desk, 2) == {jobs[0]: 0, jobs[1]: 100, evaluations[0]: 0, evaluations[1]: 10}
    places = desk.do(queue_positions, desk.settings, lambda _: 1, jobs)
    assert [places[job_id].position for job_id in jobs] == [1, 2, 3, 4]
    assert [places[job_id].predicted_start is None for job_id in jobs] == [False, False, True, True]
