"""Real processes run with a known bug, and the checker must find each bug.

The bugs are in `tests.faults.bugs`. The triggers in the database would refuse most writes of the bugs.
Therefore the triggers are disabled, because the checker must find the bugs without their help. The rules of the checker
are tested one by one in `test_checker.py`.
"""

from __future__ import annotations

import json
import signal
import sys

import pytest
import redis
from sqlalchemy import text

from common.redis.publisher import RedisPublisher
from tests.faults.fault_fleet import FaultFleet
from tests.integration.worker.fleet import LONG

pytestmark = pytest.mark.core_fault

OPEN = "CREATE OR REPLACE FUNCTION {}_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$"


def open_guards(fleet: FaultFleet) -> None:
    """Disable the triggers that refuse invalid writes, and the check that the fixture `fleet` makes after a test.

    The test itself runs the checker.
    """
    fleet.checked = False
    with fleet.sessions.begin() as session:
        session.execute(text(OPEN.format("jobs", "NEW.moved_by := NULL;")))
        session.execute(text(OPEN.format("checkpoints", "")))


def buggy_worker(fleet: FaultFleet, name: str, bug: str) -> None:
    plan = json.dumps({**LONG, "step_seconds": 0.05})
    fleet.start(name, "tests.faults.bugs.worker", TIDAL_FAKE_TRAINER=plan, SEEDED_BUG=bug)


def found(fleet: FaultFleet, words: str) -> bool:
    """Return whether the checker reports a violation that contains `words`.

    All violations are printed, so that pytest shows them if the test fails.
    """
    violations = fleet.violations()
    sys.stdout.write("\n".join(violations) + "\n")
    return any(words in violation for violation in violations)


def test_seeded_bug_an_owner_that_forgets_the_attempt_is_found(fleet: FaultFleet) -> None:
    open_guards(fleet)
    job_id = fleet.submit()
    buggy_worker(fleet, "first", "no_fencing")
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)
    buggy_worker(fleet, "second", "no_fencing")
    fleet.processes["first"].send_signal(signal.SIGSTOP)
    fleet.wait_steps(job_id, 3, attempt=2, seconds=fleet.timers.patience)
    before = sum(step.attempt == 1 for step in fleet.steps(job_id))
    fleet.processes["first"].send_signal(signal.SIGCONT)
    fleet.wait_steps(job_id, before + 3, attempt=1, seconds=fleet.timers.patience)
    assert found(fleet, "attempts 1 and 2 executed steps at the same time")


def test_seeded_bug_a_late_acknowledgement_that_runs_a_job_twice_is_found(
    fleet: FaultFleet, redis_client: redis.Redis
) -> None:
    open_guards(fleet)
    job_id = fleet.submit()
    for name in ("first", "second"):
        buggy_worker(fleet, name, "late_ack")
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)

    redis_client.client_kill_filter(_type="normal", skipme=True)
    # A busy worker may not notice that its connection was closed. The message that it was waiting for would then be
    # delivered again only after an hour. The notification below makes the worker claim again at once.
    publisher = RedisPublisher(fleet.settings.redis_url)
    publisher.notify_worker("training")
    publisher.close()

    def runs_twice() -> bool:
        steps = [step.step for step in fleet.steps(job_id)]
        return len(steps) > len(set(steps))

    fleet.wait_for(runs_twice, "a second execution", fleet.timers.patience, job_id)
    assert found(fleet, "twice: two executions of one attempt")


def test_seeded_bug_a_reaper_that_does_not_wait_for_the_lease_is_found(fleet: FaultFleet) -> None:
    open_guards(fleet)
    fleet.processes["health"].terminate()
    fleet.processes["health"].wait(20)
    fleet.start("health", "tests.faults.bugs.health")
    job_id = fleet.submit()
    fleet.worker("first", plan=LONG)
    fleet.wait_for(lambda: fleet.job(job_id).attempt == 1, "the claim", fleet.timers.patience)
    fleet.worker("second", plan=LONG)
    fleet.wait_for(lambda: " ready." in fleet.log("second").read_text(), "the second worker", fleet.timers.patience)
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)
    fleet.processes["first"].send_signal(signal.SIGSTOP)  # The worker's trainer continues until the lease is too old.
    fleet.wait_steps(job_id, 2, attempt=2, seconds=fleet.timers.patience)
    assert found(fleet, "after its lease had ended")
    assert found(fleet, "running → pending by the reaper is not in the table")


def test_seeded_bug_a_checkpoint_that_is_not_written_atomically_is_found(fleet: FaultFleet) -> None:
    open_guards(fleet)
    fleet.environment["TIDAL_TRAINER_COMMAND"] = f"{sys.executable} -m tests.faults.bugs.torn_trainer"
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    manifest = fleet.experiment(job_id) / "checkpoints" / "step-000000010" / "state"
    fleet.wait_for(lambda: manifest.exists() and manifest.stat().st_size > 0, "half a checkpoint", 60, job_id)
    [trainer] = fleet.trainers(module="tests.faults.bugs.torn_trainer")
    trainer.kill()
    fleet.wait_steps(job_id, 2, attempt=2, seconds=fleet.timers.patience)
    assert found(fleet, "was in a wrong state after step 11")


def test_seeded_bug_an_api_that_writes_the_status_of_a_leased_job_is_found(fleet: FaultFleet) -> None:
    open_guards(fleet)
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    fleet.wait_steps(job_id, 6, seconds=fleet.timers.patience)
    with fleet.sessions.begin() as session:
        session.execute(
            text(
                "UPDATE jobs SET status = 'cancelled', desired_state = 'stop', finished_at = now(), lease_owner = NULL,"
                " lease_expires_at = NULL WHERE id = :id"
            ),
            {"id": job_id},
        )
        session.execute(
            text(
                "INSERT INTO job_events (job_id, attempt, event, actor, from_status, to_status)"
                " VALUES (:id, 1, 'cancelled', 'api', 'running', 'cancelled')"
            ),
            {"id": job_id},
        )
    fleet.wait_for(lambda: not fleet.trainers(), "the trainer's end", fleet.timers.patience)
    assert found(fleet, "running → cancelled by the api is not in the table")
