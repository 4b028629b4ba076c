"""Claims: each job has one winner, limits and priorities hold, and claimers do not block each other."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier

import pytest
from sqlalchemy import text

from common.config import Settings
from common.db import make_engine, session_factory
from common.jobs.queue import claim_job, complete_job, release_job
from common.jobs.reaper import mark_stale
from common.jobs.sql import lock_type
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus

S = JobStatus


def with_limits(job_queue: JobQueue, **limits: int) -> JobQueue:
    return JobQueue(job_queue.sessions, job_queue.settings.model_copy(update=limits))


def claim_in_process(url: str, limit: int, gate: Barrier, owner: str, answers: multiprocessing.Queue[str]) -> None:
    """Claim jobs until none is pending; called in a separate process."""
    engine = make_engine(url, pool_size=1)
    settings = Settings(_env_file=None, lm_training_concurrency=limit)
    gate.wait()
    while True:
        with session_factory(engine).begin() as session:
            job = claim_job(session, "training", owner, settings)
        if job is None:
            break
        answers.put(job.id)
    answers.put("")
    engine.dispose()


def test_a_claim_raises_attempt_and_leases_by_the_databases_clock(job_queue: JobQueue) -> None:
    job_id = job_queue.submit()
    job = job_queue.claim("worker-7")
    assert job is not None
    assert (job.id, job.status, job.attempt, job.lease_owner) == (job_id, "provisioning", 1, "worker-7")
    left = job_queue.sql("SELECT extract(epoch FROM lease_expires_at - now()) FROM jobs")
    assert 50 < left <= 60
    assert job_queue.history(job_id)[1:] == [("claimed", "pending", "provisioning")]
    assert job_queue.claim() is None


def test_one_notification_sent_twenty_times_is_one_claim(job_queue: JobQueue) -> None:
    job_queue.submit()
    gate = threading.Barrier(20)

    def worker(number: int) -> bool:
        gate.wait()
        return job_queue.claim(f"worker-{number}") is not None

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(worker, range(20))) == 1
    assert job_queue.sql("SELECT attempt FROM jobs") == 1
    assert job_queue.sql("SELECT count(*) FROM job_events WHERE event = 'claimed'") == 1


def test_processes_share_the_queue_without_double_or_loss(job_queue: JobQueue, database_url: str) -> None:
    submitted = {job_queue.submit() for _ in range(30)}
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=claim_in_process, args=(database_url, 30, gate, f"worker-{n}", answers))
        for n in range(3)
    ]
    for worker in workers:
        worker.start()
    claimed: list[str] = []
    open_ends = len(workers)
    while open_ends:
        answer = answers.get(timeout=60)
        if answer:
            claimed.append(answer)
        else:
            open_ends -= 1
    for worker in workers:
        worker.join(timeout=30)
    assert sorted(claimed) == sorted(submitted)


def test_racing_claimers_never_exceed_a_limit(job_queue: JobQueue) -> None:
    job_queue = with_limits(job_queue, lm_training_concurrency=3)
    for _ in range(12):
        job_queue.submit()
    gate = threading.Barrier(10)

    def worker(number: int) -> bool:
        gate.wait()
        return job_queue.claim(f"worker-{number}") is not None

    with ThreadPoolExecutor(10) as pool:
        taken = sum(pool.map(worker, range(10)))
    assert taken == 3
    assert job_queue.sql("SELECT count(*) FROM jobs WHERE status = 'provisioning'") == 3


@pytest.mark.parametrize("round_number", range(5))
def test_claimers_that_lose_the_last_slot_of_one_type_take_another(job_queue: JobQueue, round_number: int) -> None:
    """Each of three types may have one leased job: ten claimers use every slot without a deadlock."""
    job_queue = with_limits(job_queue, other_concurrency=1)
    types = ["lm-training", "rl-training", "evaluation"]
    for job_type in types * 4:
        job_queue.submit(job_type)
    gate = threading.Barrier(10)

    def worker(number: int) -> str | None:
        gate.wait()
        job = job_queue.claim(f"worker-{number}")
        return None if job is None else job.type

    with ThreadPoolExecutor(10) as pool:
        taken = [job_type for job_type in pool.map(worker, range(10)) if job_type]
    assert sorted(taken) == sorted(types)


def test_a_type_without_a_limit_is_claimed_without_its_lock(job_queue: JobQueue) -> None:
    job_queue = with_limits(job_queue, lm_training_concurrency=0, other_concurrency=1)
    jobs = [job_queue.submit() for _ in range(3)]
    job_queue.submit("evaluation", priority=-100)
    with job_queue.sessions.begin() as busy:
        lock_type(busy, "lm-training")
        claimed = [job_queue.claim(f"worker-{n}") for n in range(3)]
    assert [job.id for job in claimed if job] == jobs
    last = job_queue.claim()
    assert last is not None and last.type == "evaluation"


def test_a_type_at_its_limit_does_not_hold_up_another(job_queue: JobQueue) -> None:
    job_queue.submit(priority=100)
    job_queue.submit(priority=100)
    other = job_queue.submit("rl-training", priority=-100)
    assert job_queue.claim() is not None
    second = job_queue.claim()
    assert second is not None and second.id == other
    assert job_queue.claim() is None


def test_claimers_of_several_types_never_deadlock(job_queue: JobQueue) -> None:
    job_queue = with_limits(job_queue, lm_training_concurrency=100, rl_training_concurrency=100, other_concurrency=100)
    for _ in range(8):
        for job_type in ("rl-training", "lm-training", "evaluation"):
            job_queue.submit(job_type)

    def worker(number: int) -> int:
        count = 0
        while job_queue.claim(f"worker-{number}") is not None:
            count += 1
        return count

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(worker, range(6))) == 24


def test_a_stale_job_counts_against_the_limit(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.submit()
    job_queue.lapse(job_id)
    job_queue.do(mark_stale)
    assert job_queue.claim() is None


def test_higher_priority_first_then_the_older(job_queue: JobQueue) -> None:
    job_queue = with_limits(job_queue, lm_training_concurrency=10)
    old, low, new, high = (
        job_queue.submit(),
        job_queue.submit(priority=-5),
        job_queue.submit(),
        job_queue.submit(priority=5),
    )
    order = []
    while (job := job_queue.claim()) is not None:
        order.append(job.id)
    assert order == [high, old, new, low]


def test_a_job_is_not_claimed_before_its_time(job_queue: JobQueue) -> None:
    job_id = job_queue.submit(not_before=datetime.now(UTC) + timedelta(hours=1))
    assert job_queue.claim() is None
    job_queue.sql("UPDATE jobs SET not_before = now() - interval '1 second'")
    job = job_queue.claim()
    assert job is not None and job.id == job_id


def test_a_locked_row_is_skipped(job_queue: JobQueue) -> None:
    job_queue = with_limits(job_queue, lm_training_concurrency=2)
    first, second = job_queue.submit(), job_queue.submit()
    with job_queue.sessions.begin() as busy:
        busy.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": first})
        job = job_queue.claim()
    assert job is not None and job.id == second


def test_every_freed_slot_sends_a_notification(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    notified = "SELECT count(*) FROM outbox WHERE kind = 'doorbell'"
    before = job_queue.sql(notified)
    job_queue.do(complete_job, job_id, 1)
    assert job_queue.sql(notified) == before + 1
    other = job_queue.submit()
    before = job_queue.sql(notified)
    assert job_queue.claim() is not None
    assert job_queue.sql(notified) == before
    job_queue.do(release_job, other, 1)
    assert job_queue.sql(notified) == before + 1
