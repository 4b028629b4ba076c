"""The reaper acts on a job only after lease and quarantine have ended, and respects desired state and retry budget."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from common.config import Settings
from common.errors import LeaseLostError, UnavailableError
from common.jobs.lease import renew
from common.jobs.maintenance import run_maintenance
from common.jobs.queue import complete_job, register_checkpoint
from common.jobs.reaper import DatabaseContact, max_answer_gap, reap
from common.jobs.signals import request_cancel, request_signal
from common.jobs.sql import MAINTENANCE
from tests.integration.jobs.job_queue import JobQueue
from tests.integration.jobs.recorder import RecordingPublisher
from tidal_client.vocabulary import ACTIVE, JobStatus, Signal

S = JobStatus


@pytest.fixture
def quiet() -> RecordingPublisher:
    return RecordingPublisher()


def age(job_queue: JobQueue, job_id: str) -> None:
    """Set the end of the lease to a time so long ago that the quarantine is over."""
    job_queue.lapse(job_id, job_queue.settings.quarantine_seconds + 1)


@pytest.mark.parametrize("status", sorted(ACTIVE - {S.STOPPING}))
def test_a_lost_worker_costs_one_restart(job_queue: JobQueue, status: JobStatus) -> None:
    job_id = job_queue.bring(status)
    job_queue.do(reap, job_queue.settings)
    assert job_queue.status(job_id) == status  # the lease is valid
    job_queue.lapse(job_id, 5)
    assert job_queue.do(reap, job_queue.settings).stale == 1
    assert job_queue.do(reap, job_queue.settings).requeued == 0  # the lease has expired, but the quarantine is not over
    age(job_queue, job_id)
    assert job_queue.do(reap, job_queue.settings).requeued == 1
    job = job_queue.job(job_id)
    assert (job.status, job.attempt, job.infra_restarts, job.lease_owner) == ("pending", 1, 1, None)
    assert job_queue.history(job_id)[-2:] == [("stale", status, "stale"), ("restarted", "stale", "pending")]
    again = job_queue.claim("worker-2")
    assert again is not None and (again.id, again.attempt) == (job_id, 2)
    with pytest.raises(LeaseLostError):
        job_queue.do(complete_job, job_id, 1)


def test_a_lost_job_that_was_to_stop_is_cancelled(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(request_signal, job_id, Signal.STOP)
    age(job_queue, job_id)
    assert job_queue.do(reap, job_queue.settings).cancelled == 1
    assert job_queue.history(job_id)[-1] == ("cancelled", "stale", "cancelled")


def test_a_stop_during_the_quarantine_is_respected(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, 1)
    job_queue.do(reap, job_queue.settings)
    job_queue.do(request_cancel, job_id)
    age(job_queue, job_id)
    job_queue.do(reap, job_queue.settings)
    assert job_queue.status(job_id) == "cancelled"


def lose(job_queue: JobQueue, job_id: str) -> str:
    job_queue.sql("UPDATE jobs SET not_before = NULL WHERE status = 'pending'")
    assert job_queue.claim() is not None
    age(job_queue, job_id)
    job_queue.do(reap, job_queue.settings)
    return job_queue.status(job_id)


def test_the_third_lost_worker_fails_the_job(job_queue: JobQueue) -> None:
    job_id = job_queue.submit()
    assert [lose(job_queue, job_id) for _ in range(3)] == ["pending", "pending", "failed"]
    job = job_queue.job(job_id)
    assert (job.error_code, job.attempt, job.infra_restarts) == ("worker_lost", 3, 3)
    assert job.error_message is not None and "3 times" in job.error_message


def test_checkpoints_between_losses_restore_the_budget(job_queue: JobQueue) -> None:
    job_id = job_queue.submit()
    for attempt in range(1, 6):
        job_queue.sql("UPDATE jobs SET not_before = NULL WHERE status = 'pending'")
        assert job_queue.claim() is not None
        job_queue.do(register_checkpoint, job_id, attempt, name=f"step-{attempt}", step=attempt, sha256="00")
        age(job_queue, job_id)
        job_queue.do(reap, job_queue.settings)
        assert job_queue.status(job_id) == "pending"


def test_a_job_with_a_renewed_lease_is_not_marked(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, 1)
    job_queue.do(renew, job_id, 1, job_queue.settings)
    assert job_queue.do(reap, job_queue.settings).stale == 0


def test_a_row_that_the_owner_is_writing_is_skipped(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, 3600)
    with job_queue.sessions.begin() as owner:
        owner.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        assert job_queue.do(reap, job_queue.settings).stale == 0
    assert job_queue.do(reap, job_queue.settings).stale == 1


def test_of_two_maintenance_passes_one_acts(job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher) -> None:
    job_id = job_queue.bring(S.RUNNING)
    age(job_queue, job_id)
    settings = job_queue.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    with engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAINTENANCE})
        assert run_maintenance(engine, quiet, settings).acted is False
    assert job_queue.status(job_id) == "running"
    gate = threading.Barrier(4)

    def one(_: int) -> int:
        gate.wait()
        return run_maintenance(engine, quiet, settings).reaped.requeued

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(4))) == 1
    assert [event for event, _, _ in job_queue.history(job_id)].count("restarted") == 1


def test_a_maintenance_pass_killed_in_the_middle_leaves_no_trace_and_no_lock(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    age(job_queue, job_id)
    with engine.connect() as victim, engine.begin() as killer:
        pid = victim.scalar(text("SELECT pg_backend_pid()"))
        victim.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAINTENANCE})
        victim.execute(text("UPDATE jobs SET updated_at = now()"))
        killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        victim.invalidate()
    settings = job_queue.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    assert run_maintenance(engine, quiet, settings).reaped.requeued == 1


class Clock:
    """A monotonic clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_an_outage_nothing_is_marked_until_the_database_has_answered_for_a_while(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    age(job_queue, job_id)
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(job_queue.settings), clock)
    for wait, settled in ((0.0, False), (19.0, False), (1.0, True)):
        clock.now += wait
        assert (run_maintenance(engine, quiet, job_queue.settings, contact=contact).reaped.stale == 1) is settled
    job_queue.do(request_cancel, job_id)
    second = job_queue.bring(S.RUNNING, "rl-training")
    age(job_queue, second)
    contact.record_outage()
    assert run_maintenance(engine, quiet, job_queue.settings, contact=contact).reaped.stale == 0
    job_queue.do(renew, second, 1, job_queue.settings)  # the owner can still renew the lease
    clock.now += 20
    assert run_maintenance(engine, quiet, job_queue.settings, contact=contact).reaped.stale == 0
    assert job_queue.status(second) == "running"


def test_after_its_own_suspension_the_reaper_waits_for_the_owners(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    settings = job_queue.settings.model_copy(update={"lease_seconds": 60.0, "reaper_seconds": 5.0})
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(settings), clock)
    for _ in range(6):  # six maintenance passes of the health process at the normal interval
        run_maintenance(engine, quiet, settings, contact=contact)
        clock.now += 5
    assert contact.settled(settings.reaper_contact_seconds)
    clock.now += 300  # simulates a suspension of the machine, which also suspends all owners
    assert not contact.settled(settings.reaper_contact_seconds)
    job_id = job_queue.bring(S.RUNNING)
    age(job_queue, job_id)
    for wait, settled in ((0.0, False), (19.0, False), (1.0, True)):
        clock.now += wait
        assert (run_maintenance(engine, quiet, settings, contact=contact).reaped.stale == 1) is settled


def test_a_maintenance_pass_that_redis_delays_does_not_reset_the_contact() -> None:
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(Settings(_env_file=None)), clock)
    for _ in range(2):
        contact.record_answer()
        clock.now += 25
    assert contact.settled(20)


def test_lost_notifications_of_pending_jobs_are_repeated(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    for _ in range(50):
        job_queue.submit("evaluation")
    run_maintenance(engine, quiet, job_queue.settings)
    quiet.forget()  # simulates FLUSHALL
    # Too early: notifications count as lost only after some seconds.
    assert run_maintenance(engine, quiet, job_queue.settings).notifications == 0
    job_queue.sql("UPDATE jobs SET updated_at = now() - interval '16 seconds'")
    assert run_maintenance(engine, quiet, job_queue.settings).notifications == 4  # at most 4 evaluations may run
    assert quiet.notified == ["training"] * 4
    assert (
        run_maintenance(engine, quiet, job_queue.settings).notifications == 0
    )  # the notifications are still in the queue


def test_without_a_limit_there_is_a_notification_for_every_waiting_job(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    for _ in range(6):
        job_queue.submit("evaluation")
    run_maintenance(engine, quiet, job_queue.settings)
    quiet.forget()
    job_queue.sql("UPDATE jobs SET updated_at = now() - interval '16 seconds'")
    assert (
        run_maintenance(engine, quiet, job_queue.settings.model_copy(update={"other_concurrency": 0})).notifications
        == 6
    )


def test_a_job_that_becomes_due_gets_a_notification(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_queue.submit()
    run_maintenance(engine, quiet, job_queue.settings)
    quiet.forget()
    job_queue.sql("UPDATE jobs SET not_before = now() + interval '1 hour', updated_at = now() - interval '1 hour'")
    assert run_maintenance(engine, quiet, job_queue.settings).notifications == 0
    job_queue.sql("UPDATE jobs SET not_before = now() - interval '1 second'")
    assert run_maintenance(engine, quiet, job_queue.settings).notifications == 1


def test_a_type_at_its_limit_gets_no_notification(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_queue.bring(S.RUNNING)
    job_queue.submit()
    job_queue.sql("UPDATE jobs SET updated_at = now() - interval '1 hour'")
    quiet.forget()
    run_maintenance(engine, quiet, job_queue.settings)
    quiet.forget()
    assert run_maintenance(engine, quiet, job_queue.settings).notifications == 0


def test_reaping_continues_while_redis_is_unavailable(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_id = job_queue.bring(S.RUNNING)
    age(job_queue, job_id)
    quiet.outage = UnavailableError("Redis does not answer")
    settings = job_queue.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    report = run_maintenance(engine, quiet, settings)
    assert (report.reaped.requeued, report.published) == (1, 0)
    quiet.outage = None
    assert run_maintenance(engine, quiet, settings).published > 0


def test_a_job_that_cannot_be_moved_does_not_block_others(job_queue: JobQueue) -> None:
    poisoned, sound = job_queue.bring(S.RUNNING), job_queue.bring(S.RUNNING, "rl-training")
    with job_queue.sessions.begin() as session:
        session.execute(
            text("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
        )
        session.execute(
            text(
                f"CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW"
                f" WHEN (OLD.id = '{poisoned}' AND NEW.status = 'stale') EXECUTE FUNCTION refuse()"
            )
        )
    for job_id in (poisoned, sound):
        job_queue.lapse(job_id, 1)
    assert job_queue.do(reap, job_queue.settings).stale == 1
    assert (job_queue.status(poisoned), job_queue.status(sound)) == ("running", "stale")


def test_a_maintenance_pass_reports_when_the_next_lease_or_quarantine_ends(
    job_queue: JobQueue, engine: Engine, quiet: RecordingPublisher
) -> None:
    settings = job_queue.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    assert run_maintenance(engine, quiet, settings).due_in is None
    job_id = job_queue.bring(S.RUNNING)
    due_in = run_maintenance(engine, quiet, settings).due_in
    assert due_in is not None
    assert settings.lease_seconds - 30 < due_in <= settings.lease_seconds
    job_queue.lapse(job_id, 1)
    assert run_maintenance(engine, quiet, settings).reaped.stale == 1
    due_in = run_maintenance(engine, quiet, settings).due_in
    assert due_in is not None
    assert settings.quarantine_seconds - 10 < due_in <= settings.quarantine_seconds - 1
