"""Fault 21 of 31: a cancel at a random time, 1,000 times in the transition code and 50 times in real processes.

The check is independent of the code: after an accepted cancel the job ends as `cancelled`; a refused cancel came after
the end of its job.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import ConflictError
from common.jobs.lease import renew
from common.jobs.queue import complete_job, register_checkpoint, release_job, transition
from common.jobs.signals import request_cancel
from tests.faults.checker import check
from tests.faults.fault_workers import FaultWorkers
from tests.faults.history import read_history
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import DesiredState, JobStatus

S = JobStatus
CANCELS = 1000
OWNERS = 4
REAL_CANCELS = 50
TERMINAL = {"completed", "cancelled", "failed"}


def live(job_queue: JobQueue, job_id: str, attempt: int) -> None:
    """Do what the supervisor of a job does: change its status, read the desired state, and end the job accordingly."""
    for number, status in enumerate((S.STARTING, S.RUNNING, S.COMPLETING)):
        job_queue.do(transition, job_id, attempt, status)
        if status is S.RUNNING:
            job_queue.do(register_checkpoint, job_id, attempt, name=f"step-{number}", step=number, sha256="00")
        if job_queue.do(renew, job_id, attempt, job_queue.settings).desired_state is DesiredState.STOP:
            job_queue.do(transition, job_id, attempt, S.STOPPING)
            job_queue.do(release_job, job_id, attempt, reason="stopped")
            return
    job_queue.do(complete_job, job_id, attempt)


def own_until(job_queue: JobQueue, name: str, over: threading.Event) -> None:
    """Claim and run jobs until no job is left and `over` is set."""
    while True:
        last = over.is_set()
        job = job_queue.claim(name)
        if job is not None:
            live(job_queue, job.id, job.attempt)
        elif last:
            return


@pytest.mark.timeout(600)
def test_fault_21_a_thousand_cancels_at_random_moments_each_have_one_correct_end(
    job_queue: JobQueue, rng: random.Random, tmp_path: Path
) -> None:
    job_queue = JobQueue(job_queue.sessions, job_queue.settings.model_copy(update={"lm_training_concurrency": OWNERS}))
    accepted: set[str] = set()
    refused: set[str] = set()

    def submit_and_cancel(seed: int) -> None:
        own_rng = random.Random(seed)
        for _ in range(CANCELS // 2):
            job_id = job_queue.submit()
            time.sleep(own_rng.uniform(0.0, 0.06))  # the delay is random on purpose
            try:
                job_queue.do(request_cancel, job_id)
                accepted.add(job_id)
            except ConflictError:
                refused.add(job_id)

    over = threading.Event()
    with ThreadPoolExecutor(OWNERS + 2) as pool:
        owners = [pool.submit(own_until, job_queue, f"owner-{number}", over) for number in range(OWNERS)]
        users = [pool.submit(submit_and_cancel, rng.getrandbits(32)) for _ in range(2)]
        for user in users:
            user.result()
        over.set()
        for owner in owners:
            owner.result()
    history = read_history(job_queue.sessions, tmp_path, accepted=accepted | refused, limits={"lm-training": OWNERS})
    assert check(history) == []
    assert {job.id for job in history.jobs if job.status == "cancelled"} == accepted
    assert {job.id for job in history.jobs if job.status == "completed"} == refused
    assert len(accepted) + len(refused) == CANCELS
    before = {event.source for event in history.events if event.target in ("cancelled", "stopping")}
    assert {"pending", "running"} <= before, f"the moments were not spread: {before}"


@pytest.mark.timeout(600)
def test_fault_21_fifty_cancels_of_real_processes_each_have_one_correct_end(
    workers: FaultWorkers, rng: random.Random
) -> None:
    workers.concurrency(2)
    for name in ("first", "second"):
        workers.worker(name)
    due: list[tuple[float, str]] = []
    accepted: set[str] = set()
    submitted = 0
    while submitted < REAL_CANCELS or due:
        if submitted < REAL_CANCELS and len(due) < 4:
            plan = {"steps": rng.randint(5, 60), "completing_seconds": rng.choice([0.0, 0.3])}
            heapq.heappush(due, (time.monotonic() + rng.uniform(0.0, 4.0), workers.submit(plan)))
            submitted += 1
            continue
        at, job_id = heapq.heappop(due)
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            workers.cancel(job_id)
            accepted.add(job_id)
        except ConflictError:
            assert workers.job(job_id).status in TERMINAL
    workers.wait_all_terminal(workers.timers.patience)
    cancelled = {job_id for job_id in workers.submitted if workers.job(job_id).status == "cancelled"}
    assert cancelled == accepted
