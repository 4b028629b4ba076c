"""Helpers that the tests of workers and trainers share, such as waiting until a random time for a fault.

The wait has two parts: first until a stage of the job (just claimed, starting, between two steps), then for a random
delay. The time limits are those of the specification, computed from the timers of the run. The tests allow twice these
limits.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import psutil
import redis

from common.child.socket import PARENT_PID_VARIABLE
from common.redis import keys
from tests.faults.fault_workers import FaultWorkers
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG

TAKEOVER_REST = 10.0
"""Time in seconds for the parts of a takeover that no timer covers: notification, claim and start of the trainer.

A takeover lasts from the loss of a worker to the first step on another one (`takeover_seconds`).
"""
BEYOND_PENDING = ("provisioning", "starting", "running")


def takeover_seconds(timers: Timers) -> float:
    """Return the longest allowed time from the loss of a worker to the first step on another one, in seconds.

    With the timers of production, this is 95 s.
    """
    return timers.after_lease + TAKEOVER_REST


def start_job(workers: FaultWorkers, plan: dict[str, Any] = LONG, **environment: str) -> str:
    """Submit a job that the worker "first" starts, and add a worker "second" that can take it over.

    Return the job's id.
    """
    job_id = workers.submit(plan=plan)
    workers.worker("first", None, **environment)
    workers.wait_status(job_id, BEYOND_PENDING)
    workers.worker("second")
    return job_id


def strike_any_time(workers: FaultWorkers, job_id: str, rng: random.Random) -> None:
    """Wait until a random time after the claim of the first attempt."""
    if rng.random() < 0.3:
        stage = rng.choice(BEYOND_PENDING)
        workers.wait_status(job_id, BEYOND_PENDING[BEYOND_PENDING.index(stage) :])
        time.sleep(rng.uniform(0.0, 0.3))  # the delay is random on purpose
    else:
        strike_while_stepping(workers, job_id, rng)


def strike_while_stepping(workers: FaultWorkers, job_id: str, rng: random.Random, attempt: int = 1) -> None:
    """Wait until the attempt has executed a random number of steps, and then for a random time."""
    workers.wait_steps(job_id, rng.randint(1, 25), attempt=attempt)
    time.sleep(rng.uniform(0.0, 0.1))  # the delay is random on purpose


def trainers_of(worker: int) -> list[psutil.Process]:
    """Return the trainers of the worker with this process id. They are found even if the worker has ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(PARENT_PID_VARIABLE) == str(worker) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def heartbeat_of(client: redis.Redis, pid: int) -> dict[str, str]:
    """Return the heartbeat of the worker with this process id; an empty mapping if there is no heartbeat."""
    for name in client.zrange(keys.WORKERS, 0, -1):
        beat = {str(field): str(value) for field, value in client.hgetall(keys.heartbeat(str(name))).items()}
        if beat.get("pid") == str(pid):
            return beat
    return {}


def wait_trainers_ended(workers: FaultWorkers, worker: int, seconds: float) -> None:
    """Wait until all trainers of the worker have ended."""
    workers.wait_for(lambda: not trainers_of(worker), f"the end of the trainers of {worker}", seconds)


def wait_next_attempt(workers: FaultWorkers, job_id: str, seconds: float, attempt: int = 2) -> None:
    """Wait until `attempt` has executed its first step."""
    workers.wait_steps(job_id, 1, attempt=attempt, seconds=seconds)


def finish(workers: FaultWorkers, job_id: str, seconds: float = 30) -> None:
    """Send "complete" to a job that would not end by itself, and wait until it has completed."""
    workers.wait_status(job_id, "running", seconds)
    workers.signal(job_id, "complete")
    workers.wait_status(job_id, "completed", seconds)


def wait_refused(workers: FaultWorkers, worker: str, seconds: float) -> None:
    """Wait until the worker has logged the loss of its lease and its trainers have ended."""
    workers.wait_for(lambda: "status=None" in workers.log(worker).read_text(), f"the refusal of {worker}", seconds)
    wait_trainers_ended(workers, workers.processes[worker].pid, seconds)
