"""Fault 24: the kernel kills the trainer for memory at every attempt.

"kernel": both workers live in a memory cgroup with a limit, the trainer takes more, the kernel kills it. "told": where
no such group can be made (and as a test of its own everywhere) the worker reads the kernel's counter from a file of the
test, in which the trainer counts one more before it sends itself the SIGKILL. Where no group can be made, "kernel"
runs in the second way too; the output of the test says which ran.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fault_fleet import FaultFleet
from tests.faults.memory_group import MemoryGroup
from tests.faults.timers import Timers
from tests.integration.worker.fleet import LONG, ROOT
from tidal_client.vocabulary import JobType

LIMIT_MIB = 600
"""Two workers (100 MiB each), their trainers, and no room for a greedy one."""
BACKOFF_SECONDS = 5.0
"""Before the third attempt."""
ATTEMPTS = 3
TOLD_COUNTERS = Path(__file__).with_name("told_counters")


@pytest.fixture(params=["kernel", "told"])
def memory(request: pytest.FixtureRequest) -> Iterator[MemoryGroup | None]:
    """The cgroup of the fleet's workers; None: the counter is told."""
    group = MemoryGroup.make(LIMIT_MIB * 2**20) if request.param == "kernel" else None
    sys.stdout.write("the kernel kills\n" if group is not None else "the test kills and counts\n")
    yield group
    if group is not None:
        group.remove()


def test_fault_24_a_job_that_runs_out_of_memory_fails_at_the_third_time_and_others_go_on(
    memory: MemoryGroup | None, fleet: FaultFleet, timers: Timers, rng: random.Random, tmp_path: Path
) -> None:
    payload = {"checkpoint": "20260101-000000-model/model.pth", "data": {"source": "builtin:stories"}, "evaluation": {}}
    other = fleet.submit(plan={"steps": 300}, type=JobType.EVALUATION, payload=payload)
    at = rng.randint(1, 4)  # before a checkpoint, which would give the budget back
    counter = tmp_path / "counters" / "proc" / "vmstat"
    counter.parent.mkdir(parents=True)
    counter.write_text("pgfault 12345\noom_kill 0\n")
    ending = f"told:{counter}" if memory is None else f"memory:{2 * LIMIT_MIB}"
    greedy = fleet.submit(plan={**LONG, "ending": ending, "at": at})
    told = {"PYTHONPATH": f"{TOLD_COUNTERS}:{ROOT}", "TIDAL_TEST_COUNTERS": str(tmp_path / "counters")}
    for name in ("first", "second"):
        process = fleet.start(name, "services.worker", **({} if memory is not None else told))
        if memory is not None:
            memory.add(process.pid)
    job = fleet.wait_status(greedy, "failed", 2 * BACKOFF_SECONDS + timers.patience)
    assert memory is None or memory.oom_kills == ATTEMPTS
    assert (job.attempt, job.error_code, job.infra_restarts) == (ATTEMPTS, "out_of_memory", ATTEMPTS)
    assert "memory" in str(job.error_message)
    fleet.wait_status(other, "completed", 60)
    assert fleet.job(other).attempt == 1
    after = fleet.submit(plan={"steps": 3})
    fleet.wait_status(after, "completed", 30)
    assert all(process.poll() is None for process in fleet.processes.values()), "no worker died with it"
