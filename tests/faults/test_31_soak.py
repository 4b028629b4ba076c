"""Fault 31 of 31: a short soak test with all kinds of faults, and random sequences of actions on jobs.

The long soak test (200 jobs, 30 minutes) is `python -m tests.faults.soak`, or `make faults FULL=1`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.checker import check
from tests.faults.history import read_history
from tests.faults.soak import Plan, soak
from tests.faults.timers import SHORT
from tests.integration.jobs.job_queue import JobQueue
from tests.integration.jobs.random_histories import Histories

LIMIT = 2


def print_line(line: str) -> None:
    """Print a line, which pytest shows if the test fails."""
    sys.stdout.write(line + "\n")


@pytest.mark.timeout(400)
def test_fault_31_jobs_under_random_faults_all_end_once(seed: int, tmp_path: Path) -> None:
    plan = Plan(jobs=12, seconds=40.0, seed=seed, timers=SHORT, fault_every=2.0)
    report = soak(plan, tmp_path / "soak", print_line)
    assert report.violations == []
    assert report.jobs == 12 and sum(report.statuses.values()) == 12
    assert sum(report.faults.values()) >= 5, "the seed brought hardly any fault"


@pytest.mark.timeout(300)
def test_fault_31_random_histories_of_the_transition_code_are_valid(
    seed: int, job_queue: JobQueue, tmp_path: Path
) -> None:
    limits = {"lm_training_concurrency": LIMIT, "other_concurrency": LIMIT}

    class Judged(Histories):
        """Runs random actions on jobs, and lets the checker read the database after each sequence."""

        def teardown(self) -> None:
            super().teardown()
            history = read_history(
                self.job_queue.sessions, tmp_path, limits={"lm-training": LIMIT, "evaluation": LIMIT}
            )
            assert check(history) == []

    Judged.limit, Judged.most = LIMIT, {}
    Judged.job_queue = JobQueue(job_queue.sessions, job_queue.settings.model_copy(update=limits))
    run_state_machine_as_test(
        hypothesis.seed(seed)(Judged),
        settings=hypothesis.settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
