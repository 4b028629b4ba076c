"""Fault 24 of 31: in every attempt, the kernel kills the trainer because memory runs out.

In the variant "kernel", both workers run in a memory cgroup with a limit. The trainer allocates more than the limit,
and the kernel kills it. In the variant "counter file", the worker reads the kernel's counter from a file of the test;
the trainer increments the counter and then sends SIGKILL to itself. If no cgroup can be created, the variant "kernel"
also uses a counter file; the output of the test shows which one was used.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_workers import FaultWorkers
from tests.faults.memory_group import MemoryGroup
from tests.faults.timers import Timers
from tests.integration.worker.workers import LONG, ROOT
from tidal_client.vocabulary import JobType

LIMIT_MIB = 600
"""Memory limit in MiB.

It is enough for two workers (100 MiB each) and normal trainers, but not for the one that allocates too much.
"""
BACKOFF_SECONDS = 5.0
"""Delay in seconds before the third attempt."""
ATTEMPTS = 3
COUNTERS_FROM_FILE = Path(__file__).with_name("counters_from_file")


@pytest.fixture(params=["kernel", "counter file"])
def memory(request: pytest.FixtureRequest) -> Iterator[MemoryGroup | None]:
    """Yield a cgroup for the workers, or None if the test uses a counter file instead of the kernel."""
    group = MemoryGroup.make(LIMIT_MIB * 2**20) if request.param == "kernel" else None
    sys.stdout.write("the kernel kills\n" if group is not None else "the test kills and counts\n")
    yield group
    if group is not None:
        group.remove()


def test_fault_24_a_job_that_runs_out_of_memory_fails_at_the_third_time_and_others_continue(
    memory: MemoryGroup | None, workers: FaultWorkers, timers: Timers, rng: random.Random, tmp_path: Path
) -> None:
    payload = {"checkpoint": "20260101-000000-model/model.pth", "data": {"source": "builtin:stories"}, "evaluation": {}}
    other = workers.submit(plan={"steps": 300}, type=JobType.EVALUATION, payload=payload)
    # The trainer is killed before its first checkpoint, because a checkpoint would reset the retry budget.
    at = rng.randint(1, 4)
    counter = tmp_path / "counters" / "proc" / "vmstat"
    counter.parent.mkdir(parents=True)
    counter.write_text("pgfault 12345\noom_kill 0\n")
    ending = f"counter:{counter}" if memory is None else f"memory:{2 * LIMIT_MIB}"
    greedy = workers.submit(plan={**LONG, "ending": ending, "at": at})
    counter_environment = {
        "PYTHONPATH": f"{COUNTERS_FROM_FILE}:{ROOT}",
        "TIDAL_TEST_COUNTERS": str(tmp_path / "counters"),
    }
    for name in ("first", "second"):
        process = workers.start(name, "services.worker", **({} if memory is not None else counter_environment))
        if memory is not None:
            memory.add(process.pid)
    job = workers.wait_status(greedy, "failed", 2 * BACKOFF_SECONDS + timers.patience)
    assert memory is None or memory.oom_kills == ATTEMPTS
    assert (job.attempt, job.error_code, job.infra_restarts) == (ATTEMPTS, "out_of_memory", ATTEMPTS)
    assert "memory" in str(job.error_message)
    workers.wait_status(other, "completed", 60)
    assert workers.job(other).attempt == 1
    after = workers.submit(plan={"steps": 3})
    workers.wait_status(after, "completed", 30)
    assert all(process.poll() is None for process in workers.processes.values()), "no worker died with it"
