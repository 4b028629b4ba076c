"""The limit of waiting jobs holds even with concurrent submissions, and existing jobs are never rejected."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, func, select

from common.config import Settings
from common.db import Job, session_factory
from common.errors import RateLimitedError
from common.jobs.limits import SERIALISE_BELOW
from common.jobs.ownership import release_job
from common.jobs.queue import NewJob, enqueue_job
from common.jobs.signals import request_signal
from common.jobs.sql import lock_waiting
from tests.integration.jobs.desk import Desk, submit_once
from tidal_client.vocabulary import JobStatus, JobType, Signal

S = JobStatus
AT_ONCE = 50


def few(desk: Desk, limit: int) -> Settings:
    return desk.settings.model_copy(update={"max_waiting_jobs": limit})


def new(**fields: object) -> NewJob:
    return NewJob(type=JobType.LM_TRAINING, payload={"config": {}}, **fields)  # type: ignore[arg-type]


def waiting(desk: Desk) -> int:
    with desk.sessions() as session:
        return session.scalar(select(func.count()).where(Job.status == S.PENDING)) or 0


def test_fifty_concurrent_submissions_never_exceed_the_limit(desk: Desk, engine: Engine) -> None:
    settings, together = few(desk, 20), threading.Barrier(AT_ONCE)
    sessions = session_factory(engine)

    def one(_: int) -> str:
        together.wait(30)
        try:
            with sessions.begin() as session:
                return enqueue_job(session, new(), settings).id
        except RateLimitedError as error:
            assert error.code == "too_many_waiting" and error.status == 429
            assert "20 jobs" in error.message and "TIDAL_MAX_WAITING_JOBS" in error.message
            return ""

    with ThreadPoolExecutor(AT_ONCE) as threads:
        accepted = [job_id for job_id in threads.map(one, range(AT_ONCE)) if job_id]
    assert len(accepted) == 20 == waiting(desk)


def test_a_job_with_not_before_counts_and_a_claimed_one_does_not(desk: Desk) -> None:
    settings = few(desk, 2)
    desk.do(enqueue_job, new(not_before=datetime.now(UTC) + timedelta(days=1)), settings)
    desk.do(enqueue_job, new(), settings)
    with pytest.raises(RateLimitedError):
        desk.do(enqueue_job, new(), settings)
    assert desk.claim() is not None
    desk.do(enqueue_job, new(), settings)


def test_existing_jobs_return_to_the_queue_and_a_repeated_submission_gets_its_job(desk: Desk) -> None:
    paused, running = desk.bring(S.PAUSED), desk.bring(S.RUNNING)
    settings = few(desk, 1)
    key = {"idempotency_key": "once", "body_hash": "ab"}
    first = desk.do(submit_once, new(**key), settings).id
    assert desk.do(submit_once, new(**key), settings).id == first
    desk.do(request_signal, paused, Signal.RESUME)
    desk.do(release_job, running, 1, reason="drained")
    assert [desk.status(job_id) for job_id in (paused, running)] == [S.PENDING, S.PENDING]
    assert waiting(desk) == 3
    assert desk.do(submit_once, new(**key), settings).id == first
    with pytest.raises(RateLimitedError, match="3 jobs"):
        desk.do(enqueue_job, new(), settings)


def test_far_from_the_limit_submissions_do_not_wait_for_each_other(desk: Desk) -> None:
    with desk.sessions.begin() as slow:
        lock_waiting(slow)
        desk.do(enqueue_job, new(), few(desk, SERIALISE_BELOW + 10))  # waiting would end with a lock timeout
        assert waiting(desk) == 1, "the job is committed while another session holds the lock"
