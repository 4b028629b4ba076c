"""Random actions of users, current and outdated owners, and the reaper produce only valid sequences of job events.

The checks read only the database. Every event starts at the status at which the previous event ended, and its
transition is in the specification. A terminal status is final, each claim increments the attempt, and no type has
more leased jobs than its limit. The outbox publishes the same status changes as the events.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.jobs.job_queue import JobQueue
from tests.integration.jobs.random_histories import TYPES, Histories


@pytest.mark.parametrize("limit", [1, 2])
def test_random_histories_are_valid(job_queue: JobQueue, limit: int) -> None:
    class Bound(Histories):
        pass

    limits = {"lm_training_concurrency": limit, "other_concurrency": limit}
    Bound.job_queue = JobQueue(job_queue.sessions, job_queue.settings.model_copy(update=limits))
    Bound.limit, Bound.most = limit, {}
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=6,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # shrinking would take minutes, and the printed steps suffice to find an error
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Bound.most == dict.fromkeys(TYPES, limit), "the limits were reached, not only kept"
