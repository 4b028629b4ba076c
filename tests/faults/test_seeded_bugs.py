"""Real processes run with a known bug, and the checker must find each bug.

The bugs are in `tests.faults.bugs`. The triggers in the database would refuse most writes of the bugs. The checker must
find the bugs without the help of the triggers, so the tests disable the triggers. The rules of the checker are tested
one by one in `test_checker.py`.
"""

from __future__ import annotations

import json
import signal
import sys

import pytest
import redis
from sqlalchemy import text

from common.redis.publisher import RedisPublisher
from tests.faults.fault_workers import FaultWorkers
from tests.integration.worker.workers import LONG

pytestmark = pytest.mark.core_fault

OPEN = "CREATE OR REPLACE FUNCTION {}_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$"


def open_guards(workers: FaultWorkers) -> None:
    """Disable the triggers that refuse invalid writes, and the check that the fixture `workers` makes after a test.

    The test itself runs the checker.
    """
    workers.checked = False
    with workers.sessions.begin() as session:
        session.execute(text(OPEN.format("jobs", "NEW.moved_by := NULL;")))
        session.execute(text(OPEN.format("checkpoints", "")))


def buggy_worker(workers: FaultWorkers, name: str, bug: str) -> None:
    plan = json.dumps({**LONG, "step_seconds": 0.05})
    workers.start(name, "tests.faults.bugs.worker", TIDAL_FAKE_TRAINER=plan, SEEDED_BUG=bug)


def found(workers: FaultWorkers, words: str) -> bool:
    """Return whether the checker reports a violation that contains `words`.

    All violations are printed, so that pytest shows them if the test fails.
    """
    violations = workers.violations()
    sys.stdout.write("\n".join(violations) + "\n")
    return any(words in violation for violation in violations)


def test_seeded_bug_an_owner_that_forgets_the_attempt_is_found(workers: FaultWorkers) -> None:
    open_guards(workers)
    job_id = workers.submit()
    buggy_worker(workers, "first", "no_fencing")
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)
    buggy_worker(workers, "second", "no_fencing")
    workers.processes["first"].send_signal(signal.SIGSTOP)
    workers.wait_steps(job_id, 3, attempt=2, seconds=workers.timers.patience)
    before = sum(step.attempt == 1 for step in workers.steps(job_id))
    workers.processes["first"].send_signal(signal.SIGCONT)
    workers.wait_steps(job_id, before + 3, attempt=1, seconds=workers.timers.patience)
    assert found(workers, "attempts 1 and 2 executed steps at the same time")


def test_seeded_bug_a_late_acknowledgement_that_runs_a_job_twice_is_found(
    workers: FaultWorkers, redis_client: redis.Redis
) -> None:
    open_guards(workers)
    job_id = workers.submit()
    for name in ("first", "second"):
        buggy_worker(workers, name, "late_ack")
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)

    redis_client.client_kill_filter(_type="normal", skipme=True)
    # A busy worker may not notice that its connection was closed. The message that it was waiting for would then be
    # delivered again only after an hour. The notification below makes the worker claim again at once.
    publisher = RedisPublisher(workers.settings.redis_url)
    publisher.notify_worker("training")
    publisher.close()

    def runs_twice() -> bool:
        steps = [step.step for step in workers.steps(job_id)]
        return len(steps) > len(set(steps))

    workers.wait_for(runs_twice, "a second execution", workers.timers.patience, job_id)
    assert found(workers, "twice: two executions of one attempt")


def test_seeded_bug_a_reaper_that_does_not_wait_for_the_lease_is_found(workers: FaultWorkers) -> None:
    open_guards(workers)
    workers.processes["health"].terminate()
    workers.processes["health"].wait(20)
    workers.start("health", "tests.faults.bugs.health")
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_for(lambda: workers.job(job_id).attempt == 1, "the claim", workers.timers.patience)
    workers.worker("second", plan=LONG)
    workers.wait_for(
        lambda: " ready." in workers.log("second").read_text(), "the second worker", workers.timers.patience
    )
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)
    workers.processes["first"].send_signal(signal.SIGSTOP)  # The worker's trainer continues until the lease is too old.
    workers.wait_steps(job_id, 2, attempt=2, seconds=workers.timers.patience)
    assert found(workers, "after its lease had ended")
    assert found(workers, "running → pending by the reaper is not in the table")


def test_seeded_bug_a_checkpoint_that_is_not_written_atomically_is_found(workers: FaultWorkers) -> None:
    open_guards(workers)
    workers.environment["TIDAL_TRAINER_COMMAND"] = f"{sys.executable} -m tests.faults.bugs.torn_trainer"
    job_id = workers.submit()
    workers.worker(plan=LONG)
    manifest = workers.experiment(job_id) / "checkpoints" / "step-000000010" / "state"
    workers.wait_for(lambda: manifest.exists() and manifest.stat().st_size > 0, "half a checkpoint", 60, job_id)
    [trainer] = workers.trainers(module="tests.faults.bugs.torn_trainer")
    trainer.kill()
    workers.wait_steps(job_id, 2, attempt=2, seconds=workers.timers.patience)
    assert found(workers, "was in a wrong state after step 11")


def test_seeded_bug_an_api_that_writes_the_status_of_a_leased_job_is_found(workers: FaultWorkers) -> None:
    open_guards(workers)
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_steps(job_id, 6, seconds=workers.timers.patience)
    with workers.sessions.begin() as session:
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
    workers.wait_for(lambda: not workers.trainers(), "the trainer's end", workers.timers.patience)
    assert found(workers, "running → cancelled by the api is not in the table")
