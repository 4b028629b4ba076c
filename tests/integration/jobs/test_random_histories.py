"""Users, owners (also outdated ones), lost leases and sweeps in random order produce only valid histories of jobs.

The checks read only rows: every event starts at the status at which the previous one ended, along the transitions of
the specification; a terminal status is final; each claim increments the attempt; the limits hold; and the outbox
publishes the same changes of status as the events.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.jobs.desk import Desk
from tests.integration.jobs.random_histories import TYPES, Histories


@pytest.mark.parametrize("limit", [1, 2])
def test_random_histories_are_valid(desk: Desk, limit: int) -> None:
    class Bound(Histories):
        pass

    limits = {"lm_training_concurrency": limit, "other_concurrency": limit}
    Bound.desk = Desk(desk.sessions, desk.settings.model_copy(update=limits))
    Bound.limit, Bound.most = limit, {}
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=6,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # shrinking would take minutes, and the printed steps are enough
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Bound.most == dict.fromkeys(TYPES, limit), "the limits were reached, not only kept"
