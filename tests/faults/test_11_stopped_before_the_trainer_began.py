"""Fault 11 of 31, a case that a soak test found: the supervisor is suspended (SIGSTOP) while its trainer is starting.

The trainer then receives no ping. It must measure the age of the lease from the last renewal, not from its own start.
"""

from __future__ import annotations

import signal

import psutil

from tests.faults.fault_fleet import FaultFleet
from tests.integration.worker.fleet import LONG


def test_fault_11_a_trainer_that_starts_under_a_stopped_supervisor_is_suspended_in_time(fleet: FaultFleet) -> None:
    late = 0.9 * fleet.timers.trainer_pause_seconds
    job_id = fleet.submit()
    fleet.worker("first", plan={**LONG, "begin_seconds": late})
    fleet.wait_for(lambda: bool(fleet.trainers("first")), "the trainer", 60)
    fleet.processes["first"].send_signal(signal.SIGSTOP)
    [trainer] = fleet.trainers("first")
    fleet.worker("second", plan=LONG)
    fleet.wait_steps(job_id, 3, attempt=2, seconds=fleet.timers.patience)
    fleet.processes["first"].send_signal(signal.SIGCONT)
    assert psutil.wait_procs([trainer], timeout=20)[1] == []
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled", seconds=fleet.timers.patience)
