"""The reaper acts on a job only after lease and quarantine have ended, and respects desired state and retry budget."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from common.config import Settings
from common.errors import LeaseLostError, UnavailableError
from common.jobs.lease import renew
from common.jobs.queue import complete_job, register_checkpoint
from common.jobs.reaper import DatabaseContact, max_answer_gap, reap
from common.jobs.signals import request_cancel, request_signal
from common.jobs.sql import SWEEP
from common.jobs.sweep import run_sweep
from tests.integration.jobs.desk import Desk
from tests.integration.jobs.recorder import RecordingPublisher
from tidal_client.vocabulary import ACTIVE, JobStatus, Signal

S = JobStatus


@pytest.fixture
def quiet() -> RecordingPublisher:
    return RecordingPublisher()


def age(desk: Desk, job_id: str) -> None:
    """Set the end of the lease to a time so long ago that the quarantine is over."""
    desk.lapse(job_id, desk.settings.quarantine_seconds + 1)


@pytest.mark.parametrize("status", sorted(ACTIVE - {S.STOPPING}))
def test_a_lost_worker_costs_one_restart(desk: Desk, status: JobStatus) -> None:
    job_id = desk.bring(status)
    desk.do(reap, desk.settings)
    assert desk.status(job_id) == status  # the lease is valid
    desk.lapse(job_id, 5)
    assert desk.do(reap, desk.settings).stale == 1
    assert desk.do(reap, desk.settings).requeued == 0  # the lease has expired, but the quarantine is not over
    age(desk, job_id)
    assert desk.do(reap, desk.settings).requeued == 1
    job = desk.job(job_id)
    assert (job.status, job.attempt, job.infra_restarts, job.lease_owner) == ("pending", 1, 1, None)
    assert desk.history(job_id)[-2:] == [("stale", status, "stale"), ("restarted", "stale", "pending")]
    again = desk.claim("worker-2")
    assert again is not None and (again.id, again.attempt) == (job_id, 2)
    with pytest.raises(LeaseLostError):
        desk.do(complete_job, job_id, 1)


def test_a_lost_job_that_was_to_stop_is_cancelled(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.do(request_signal, job_id, Signal.STOP)
    age(desk, job_id)
    assert desk.do(reap, desk.settings).cancelled == 1
    assert desk.history(job_id)[-1] == ("cancelled", "stale", "cancelled")


def test_a_stop_during_the_quarantine_is_respected(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, 1)
    desk.do(reap, desk.settings)
    desk.do(request_cancel, job_id)
    age(desk, job_id)
    desk.do(reap, desk.settings)
    assert desk.status(job_id) == "cancelled"


def lose(desk: Desk, job_id: str) -> str:
    desk.sql("UPDATE jobs SET not_before = NULL WHERE status = 'pending'")
    assert desk.claim() is not None
    age(desk, job_id)
    desk.do(reap, desk.settings)
    return desk.status(job_id)


def test_the_third_lost_worker_fails_the_job(desk: Desk) -> None:
    job_id = desk.submit()
    assert [lose(desk, job_id) for _ in range(3)] == ["pending", "pending", "failed"]
    job = desk.job(job_id)
    assert (job.error_code, job.attempt, job.infra_restarts) == ("worker_lost", 3, 3)
    assert job.error_message is not None and "3 times" in job.error_message


def test_checkpoints_between_losses_restore_the_budget(desk: Desk) -> None:
    job_id = desk.submit()
    for attempt in range(1, 6):
        desk.sql("UPDATE jobs SET not_before = NULL WHERE status = 'pending'")
        assert desk.claim() is not None
        desk.do(register_checkpoint, job_id, attempt, name=f"step-{attempt}", step=attempt, sha256="00")
        age(desk, job_id)
        desk.do(reap, desk.settings)
        assert desk.status(job_id) == "pending"


def test_a_job_with_a_renewed_lease_is_not_marked(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, 1)
    desk.do(renew, job_id, 1, desk.settings)
    assert desk.do(reap, desk.settings).stale == 0


def test_a_row_that_the_owner_is_writing_is_skipped(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, 3600)
    with desk.sessions.begin() as owner:
        owner.execute(text("SELECT 1 FROM jobs FOR UPDATE"))
        assert desk.do(reap, desk.settings).stale == 0
    assert desk.do(reap, desk.settings).stale == 1


def test_of_two_sweeps_one_acts(desk: Desk, engine: Engine, quiet: RecordingPublisher) -> None:
    job_id = desk.bring(S.RUNNING)
    age(desk, job_id)
    settings = desk.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    with engine.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SWEEP})
        assert run_sweep(engine, quiet, settings).acted is False
    assert desk.status(job_id) == "running"
    gate = threading.Barrier(4)

    def one(_: int) -> int:
        gate.wait()
        return run_sweep(engine, quiet, settings).reaped.requeued

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(4))) == 1
    assert [event for event, _, _ in desk.history(job_id)].count("restarted") == 1


def test_a_sweep_killed_in_the_middle_leaves_no_trace_and_no_lock(
    desk: Desk, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_id = desk.bring(S.RUNNING)
    age(desk, job_id)
    with engine.connect() as victim, engine.begin() as killer:
        pid = victim.scalar(text("SELECT pg_backend_pid()"))
        victim.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SWEEP})
        victim.execute(text("UPDATE jobs SET updated_at = now()"))
        killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        victim.invalidate()
    settings = desk.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    assert run_sweep(engine, quiet, settings).reaped.requeued == 1


class Clock:
    """A monotonic clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_an_outage_nothing_is_marked_until_the_database_has_answered_for_a_while(
    desk: Desk, engine: Engine, quiet: RecordingPublisher
) -> None:
    job_id = desk.bring(S.RUNNING)
    age(desk, job_id)
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(desk.settings), clock)
    for wait, settled in ((0.0, False), (19.0, False), (1.0, True)):
        clock.now += wait
        assert (run_sweep(engine, quiet, desk.settings, contact=contact).reaped.stale == 1) is settled
    desk.do(request_cancel, job_id)
    second = desk.bring(S.RUNNING, "rl-training")
    age(desk, second)
    contact.record_outage()
    assert run_sweep(engine, quiet, desk.settings, contact=contact).reaped.stale == 0
    desk.do(renew, second, 1, desk.settings)  # the owner can still renew the lease
    clock.now += 20
    assert run_sweep(engine, quiet, desk.settings, contact=contact).reaped.stale == 0
    assert desk.status(second) == "running"


def test_after_its_own_suspension_the_reaper_waits_for_the_owners(
    desk: Desk, engine: Engine, quiet: RecordingPublisher
) -> None:
    settings = desk.settings.model_copy(update={"lease_seconds": 60.0, "reaper_seconds": 5.0})
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(settings), clock)
    for _ in range(6):  # six sweeps of the health process at the normal interval
        run_sweep(engine, quiet, settings, contact=contact)
        clock.now += 5
    assert contact.settled(settings.reaper_contact_seconds)
    clock.now += 300  # simulates a suspension of the machine, which also suspends all owners
    assert not contact.settled(settings.reaper_contact_seconds)
    job_id = desk.bring(S.RUNNING)
    age(desk, job_id)
    for wait, settled in ((0.0, False), (19.0, False), (1.0, True)):
        clock.now += wait
        assert (run_sweep(engine, quiet, settings, contact=contact).reaped.stale == 1) is settled


def test_a_sweep_that_redis_delays_does_not_reset_the_contact() -> None:
    clock = Clock()
    contact = DatabaseContact(max_answer_gap(Settings(_env_file=None)), clock)
    for _ in range(2):
        contact.record_answer()
        clock.now += 25
    assert contact.settled(20)


def test_lost_notifications_of_pending_jobs_are_repeated(desk: Desk, engine: Engine, quiet: RecordingPublisher) -> None:
    for _ in range(50):
        desk.submit("evaluation")
    run_sweep(engine, quiet, desk.settings)
    quiet.forget()  # simulates FLUSHALL
    # Too early: notifications count as lost only after some seconds.
    assert run_sweep(engine, quiet, desk.settings).notifications == 0
    desk.sql("UPDATE jobs SET updated_at = now() - interval '16 seconds'")
    assert run_sweep(engine, quiet, desk.settings).notifications == 4  # at most 4 evaluations may run
    assert quiet.notified == ["training"] * 4
    assert run_sweep(engine, quiet, desk.settings).notifications == 0  # the notifications are still in the queue


def test_without_a_limit_there_is_a_notification_for_every_waiting_job(
    desk: Desk, engine: Engine, quiet: RecordingPublisher
) -> None:
    for _ in range(6):
        desk.submit("evaluation")
    run_sweep(engine, quiet, desk.settings)
    quiet.forget()
    desk.sql("UPDATE jobs SET updated_at = now() - interval '16 seconds'")
    assert run_sweep(engine, quiet, desk.settings.model_copy(update={"other_concurrency": 0})).notifications == 6


def test_a_job_that_becomes_due_gets_a_notification(desk: Desk, engine: Engine, quiet: RecordingPublisher) -> None:
    desk.submit()
    run_sweep(engine, quiet, desk.settings)
    quiet.forget()
    desk.sql("UPDATE jobs SET not_before = now() + interval '1 hour', updated_at = now() - interval '1 hour'")
    assert run_sweep(engine, quiet, desk.settings).notifications == 0
    desk.sql("UPDATE jobs SET not_before = now() - interval '1 second'")
    assert run_sweep(engine, quiet, desk.settings).notifications == 1


def test_a_type_at_its_limit_gets_no_notification(desk: Desk, engine: Engine, quiet: RecordingPublisher) -> None:
    desk.bring(S.RUNNING)
    desk.submit()
    desk.sql("UPDATE jobs SET updated_at = now() - interval '1 hour'")
    quiet.forget()
    run_sweep(engine, quiet, desk.settings)
    quiet.forget()
    assert run_sweep(engine, quiet, desk.settings).notifications == 0


def test_reaping_continues_while_redis_is_unavailable(desk: Desk, engine: Engine, quiet: RecordingPublisher) -> None:
    job_id = desk.bring(S.RUNNING)
    age(desk, job_id)
    quiet.outage = UnavailableError("Redis does not answer")
    settings = desk.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    report = run_sweep(engine, quiet, settings)
    assert (report.reaped.requeued, report.published) == (1, 0)
    quiet.outage = None
    assert run_sweep(engine, quiet, settings).published > 0


def test_a_job_that_cannot_be_moved_does_not_block_others(desk: Desk) -> None:
    poisoned, sound = desk.bring(S.RUNNING), desk.bring(S.RUNNING, "rl-training")
    with desk.sessions.begin() as session:
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
        desk.lapse(job_id, 1)
    assert desk.do(reap, desk.settings).stale == 1
    assert (desk.status(poisoned), desk.status(sound)) == ("running", "stale")


def test_a_sweep_reports_when_the_next_lease_or_quarantine_ends(
    desk: Desk, engine: Engine, quiet: RecordingPublisher
) -> None:
    settings = desk.settings.model_copy(update={"reaper_contact_seconds": 0.0})
    assert run_sweep(engine, quiet, settings).due_in is None
    job_id = desk.bring(S.RUNNING)
    due_in = run_sweep(engine, quiet, settings).due_in
    assert due_in is not None
    assert settings.lease_seconds - 30 < due_in <= settings.lease_seconds
    desk.lapse(job_id, 1)
    assert run_sweep(engine, quiet, settings).reaped.stale == 1
    due_in = run_sweep(engine, quiet, settings).due_in
    assert due_in is not None
    assert settings.quarantine_seconds - 10 < due_in <= settings.quarantine_seconds - 1
