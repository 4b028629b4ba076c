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
from tests.integration.jobs.job_queue import JobQueue, submit_once
from tidal_client.vocabulary import JobStatus, JobType, Signal

S = JobStatus
AT_ONCE = 50


def few(job_queue: JobQueue, limit: int) -> Settings:
    return job_queue.settings.model_copy(update={"max_waiting_jobs": limit})


def new(**fields: object) -> NewJob:
    return NewJob(type=JobType.LM_TRAINING, payload={"config": {}}, **fields)  # type: ignore[arg-type]


def waiting(job_queue: JobQueue) -> int:
    with job_queue.sessions() as session:
        return session.scalar(select(func.count()).where(Job.status == S.PENDING)) or 0


def test_fifty_concurrent_submissions_never_exceed_the_limit(job_queue: JobQueue, engine: Engine) -> None:
    settings, together = few(job_queue, 20), threading.Barrier(AT_ONCE)
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
    assert len(accepted) == 20 == waiting(job_queue)


def test_a_job_with_not_before_counts_and_a_claimed_one_does_not(job_queue: JobQueue) -> None:
    settings = few(job_queue, 2)
    job_queue.do(enqueue_job, new(not_before=datetime.now(UTC) + timedelta(days=1)), settings)
    job_queue.do(enqueue_job, new(), settings)
    with pytest.raises(RateLimitedError):
        job_queue.do(enqueue_job, new(), settings)
    assert job_queue.claim() is not None
    job_queue.do(enqueue_job, new(), settings)


def test_existing_jobs_return_to_the_queue_and_a_repeated_submission_gets_its_job(job_queue: JobQueue) -> None:
    paused, running = job_queue.bring(S.PAUSED), job_queue.bring(S.RUNNING)
    settings = few(job_queue, 1)
    key = {"idempotency_key": "once", "body_hash": "ab"}
    first = job_queue.do(submit_once, new(**key), settings).id
    assert job_queue.do(submit_once, new(**key), settings).id == first
    job_queue.do(request_signal, paused, Signal.RESUME)
    job_queue.do(release_job, running, 1, reason="drained")
    assert [job_queue.status(job_id) for job_id in (paused, running)] == [S.PENDING, S.PENDING]
    assert waiting(job_queue) == 3
    assert job_queue.do(submit_once, new(**key), settings).id == first
    with pytest.raises(RateLimitedError, match="3 jobs"):
        job_queue.do(enqueue_job, new(), settings)


def test_far_from_the_limit_submissions_do_not_wait_for_each_other(job_queue: JobQueue) -> None:
    with job_queue.sessions.begin() as slow:
        lock_waiting(slow)
        job_queue.do(enqueue_job, new(), few(job_queue, SERIALISE_BELOW + 10))  # waiting would end with a lock timeout
        assert waiting(job_queue) == 1, "the job is committed while another session holds the lock"
