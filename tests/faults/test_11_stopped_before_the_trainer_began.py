"""Fault 11 of 31, a case that a soak test found: the supervisor is suspended (SIGSTOP) while its trainer is starting.

The trainer then receives no ping. It must measure the age of the lease from the last renewal, not from its own start.
"""

from __future__ import annotations

import signal

import psutil

from tests.faults.fault_workers import FaultWorkers
from tests.integration.worker.workers import LONG


def test_fault_11_a_trainer_that_starts_under_a_stopped_supervisor_is_suspended_in_time(workers: FaultWorkers) -> None:
    late = 0.9 * workers.timers.trainer_pause_seconds
    job_id = workers.submit()
    workers.worker("first", plan={**LONG, "begin_seconds": late})
    workers.wait_for(lambda: bool(workers.trainers("first")), "the trainer", 60)
    workers.processes["first"].send_signal(signal.SIGSTOP)
    [trainer] = workers.trainers("first")
    workers.worker("second", plan=LONG)
    workers.wait_steps(job_id, 3, attempt=2, seconds=workers.timers.patience)
    workers.processes["first"].send_signal(signal.SIGCONT)
    assert psutil.wait_procs([trainer], timeout=20)[1] == []
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled", seconds=workers.timers.patience)
