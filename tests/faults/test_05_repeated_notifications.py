"""Fault 5 of 31: four workers receive the same notification twenty times, and the job is claimed once."""

from __future__ import annotations

import pytest

from common.redis.publisher import RedisPublisher
from tests.faults.fault_fleet import FaultFleet


@pytest.mark.core_fault
def test_fault_05_the_same_notification_twenty_times_to_four_workers_is_one_claim(fleet: FaultFleet) -> None:
    fleet.concurrency(4)
    publisher = RedisPublisher(fleet.settings.redis_url)
    job_id = fleet.submit()
    for _ in range(20):
        publisher.notify_worker("training")
    for number in range(4):
        fleet.worker(f"worker-{number}", plan={"steps": 30})
    fleet.wait_status(job_id, "completed", seconds=fleet.timers.patience)
    fleet.wait_for(lambda: publisher.undelivered("training") == 0, "all notifications received")
    publisher.close()
    assert fleet.event_names(job_id).count("claimed") == 1
    assert [step.step for step in fleet.steps(job_id)] == list(range(1, 31))
