"""Fault 5 of 31: four workers receive the same notification twenty times, and the job is claimed once."""

from __future__ import annotations

import pytest

from common.redis.publisher import RedisPublisher
from tests.faults.fault_workers import FaultWorkers


@pytest.mark.core_fault
def test_fault_05_the_same_notification_twenty_times_to_four_workers_is_one_claim(workers: FaultWorkers) -> None:
    workers.concurrency(4)
    publisher = RedisPublisher(workers.settings.redis_url)
    job_id = workers.submit()
    for _ in range(20):
        publisher.notify_worker("training")
    for number in range(4):
        workers.worker(f"worker-{number}", plan={"steps": 30})
    workers.wait_status(job_id, "completed", seconds=workers.timers.patience)
    workers.wait_for(lambda: publisher.undelivered("training") == 0, "all notifications received")
    publisher.close()
    assert workers.event_names(job_id).count("claimed") == 1
    assert [step.step for step in workers.steps(job_id)] == list(range(1, 31))
