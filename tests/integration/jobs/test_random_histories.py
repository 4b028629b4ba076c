"""Random users, owners (also outdated ones), lost leases and sweeps: whatever the order, the histories stay lawful.

The checker reads nothing but rows: every event continues where the one before ended, along the table of the
specification, terminal ends are final and single, attempts grow by one per claim, limits hold, the outbox tells the
same story as the events.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.integration.jobs.desk import Desk
from tests.integration.jobs.random_histories import TYPES, Histories


@pytest.mark.parametrize("limit", [1, 2])
def test_random_histories_are_lawful(desk: Desk, limit: int) -> None:
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
            phases=[Phase.generate],  # shrinking takes minutes; the steps printed are enough
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Bound.most == dict.fromkeys(TYPES, limit)  # the limits were reached, not just kept
