"""Every signal in every status has the effect that the specification's table defines."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from common.db import Outbox
from common.errors import ConflictError, NotFoundError
from common.jobs.queue import register_checkpoint, release_job, transition
from common.jobs.reaper import mark_stale
from common.jobs.signals import possible_signals, request_cancel, request_signal
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus, Signal

S = JobStatus

# The specification's table of allowed signals: pending: stop; provisioning, starting: stop, pause; running: all;
# completing: stop; paused: resume, stop; stale: recorded without effect; all others: 409. The value is the status after
# the signal.
ACCEPTED = {
    (S.PENDING, Signal.STOP): S.CANCELLED,
    (S.PROVISIONING, Signal.STOP): S.PROVISIONING,
    (S.PROVISIONING, Signal.PAUSE): S.PROVISIONING,
    (S.STARTING, Signal.STOP): S.STARTING,
    (S.STARTING, Signal.PAUSE): S.STARTING,
    (S.RUNNING, Signal.STOP): S.RUNNING,
    (S.RUNNING, Signal.PAUSE): S.RUNNING,
    (S.RUNNING, Signal.COMPLETE): S.RUNNING,
    (S.RUNNING, Signal.RESUME): S.RUNNING,
    (S.COMPLETING, Signal.STOP): S.COMPLETING,
    (S.PAUSED, Signal.RESUME): S.PENDING,
    (S.PAUSED, Signal.STOP): S.CANCELLED,
    (S.STALE, Signal.STOP): S.STALE,
    (S.STALE, Signal.PAUSE): S.STALE,
    (S.STALE, Signal.COMPLETE): S.STALE,
    (S.STALE, Signal.RESUME): S.STALE,
}


def in_status(job_queue: JobQueue, status: JobStatus) -> str:
    if status is S.STALE:
        job_id = job_queue.bring(S.RUNNING)
        job_queue.lapse(job_id)
        job_queue.do(mark_stale)
        return job_id
    if status is S.FAILED:
        job_id = job_queue.bring(S.RUNNING)
        job_queue.do(transition, job_id, 1, S.FAILED, error_code="user_error")
        return job_id
    return job_queue.bring(status)


@pytest.mark.parametrize("status", list(S))
def test_signals_by_status(job_queue: JobQueue, status: JobStatus) -> None:
    for signal in Signal:
        job_id = in_status(job_queue, status)
        assert job_queue.status(job_id) == status
        events = len(job_queue.history(job_id))
        if (status, signal) in ACCEPTED:
            job = job_queue.do(request_signal, job_id, signal)
            assert job.status == job_queue.status(job_id) == ACCEPTED[status, signal]
            expected = {"pause": "pause", "resume": "run", "complete": "complete", "stop": "stop"}[signal]
            assert job_queue.job(job_id).desired_state == expected
            assert len(job_queue.history(job_id)) == events + (signal is not Signal.RESUME or status is S.PAUSED)
        else:
            with pytest.raises(ConflictError, match=status) as caught:
                job_queue.do(request_signal, job_id, signal)
            assert caught.value.errors == [{"location": "status", "message": status}]
            assert len(job_queue.history(job_id)) == events
        job_queue.sql("DELETE FROM experiments")


def test_desired_states_only_become_more_severe_except_pause_to_run(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    for signal in (Signal.PAUSE, Signal.RESUME, Signal.PAUSE, Signal.COMPLETE):
        job_queue.do(request_signal, job_id, signal)
    for milder in (Signal.PAUSE, Signal.RESUME):
        with pytest.raises(ConflictError, match="complete"):
            job_queue.do(request_signal, job_id, milder)
    job_queue.do(request_signal, job_id, Signal.STOP)
    with pytest.raises(ConflictError, match="stop"):
        job_queue.do(request_signal, job_id, Signal.COMPLETE)
    assert job_queue.job(job_id).desired_state == "stop"


def test_repeating_a_signal_changes_nothing(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    first = job_queue.do(request_signal, job_id, Signal.STOP).desired_at
    events = job_queue.history(job_id)
    assert job_queue.do(request_signal, job_id, Signal.STOP).desired_at == first
    assert job_queue.history(job_id) == events


def test_cancel_after_stop_does_not_extend_the_grace_period(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    first = job_queue.do(request_signal, job_id, Signal.STOP).desired_at
    job_queue.do(transition, job_id, 1, S.STOPPING)
    job = job_queue.do(request_cancel, job_id)
    assert (job.cancel_requested, job.desired_at) == (True, first)


@pytest.mark.parametrize("status", [S.PENDING, S.PAUSED])
def test_cancel_ends_a_job_without_a_lease_at_once(job_queue: JobQueue, status: JobStatus) -> None:
    job_id = job_queue.bring(status)
    assert job_queue.do(request_cancel, job_id).status == S.CANCELLED
    assert job_queue.history(job_id)[-1] == ("cancelled", status, "cancelled")


@pytest.mark.parametrize("status", [S.COMPLETED, S.CANCELLED])
def test_cancel_of_an_ended_job_is_a_conflict(job_queue: JobQueue, status: JobStatus) -> None:
    job_id = job_queue.bring(status)
    with pytest.raises(ConflictError, match=status):
        job_queue.do(request_cancel, job_id)


def test_a_pause_without_a_checkpoint_stays_requested_and_can_be_withdrawn(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.STARTING)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    assert job_queue.do(release_job, job_id, 1) == S.PENDING
    assert job_queue.job(job_id).desired_state == "pause"
    job = job_queue.claim()
    assert job is not None and job.desired_state == "pause", "it pauses at the first safe point of the next attempt"
    assert job_queue.do(release_job, job_id, 2) == S.PENDING
    assert possible_signals(job_queue.job(job_id)) == {Signal.RESUME, Signal.STOP}
    job_queue.do(request_signal, job_id, Signal.RESUME)
    assert (job_queue.status(job_id), job_queue.job(job_id).desired_state) == ("pending", "run")
    assert possible_signals(job_queue.job(job_id)) == {Signal.STOP}


def test_a_job_without_checkpoints_accepts_only_stop(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING, "evaluation")
    assert possible_signals(job_queue.job(job_id)) == {Signal.STOP}
    for signal in (Signal.PAUSE, Signal.COMPLETE, Signal.RESUME):
        with pytest.raises(ConflictError, match="keeps no checkpoint"):
            job_queue.do(request_signal, job_id, signal)
    assert job_queue.do(request_signal, job_id, Signal.STOP).desired_state == "stop"


def test_a_changed_desired_state_notifies_the_owner_and_is_published(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.sql("DELETE FROM outbox")
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    with job_queue.sessions() as session:
        rows = [(row.kind, row.payload.get("desiredState")) for row in session.scalars(select(Outbox))]
    assert sorted(rows, key=str) == [("job-update", "pause"), ("wish", None)]


def test_a_resumed_job_is_claimed_again_with_its_checkpoint(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.PAUSED)
    job_queue.do(request_signal, job_id, Signal.RESUME)
    job = job_queue.claim("worker-2")
    assert job is not None
    assert (job.id, job.attempt, job.desired_state, job.checkpoint_step) == (job_id, 2, "run", 5)
    job_queue.do(transition, job_id, 2, S.STARTING)
    job_queue.do(register_checkpoint, job_id, 2, name="step-6", step=6, sha256="00")


def test_a_missing_job_is_an_error(job_queue: JobQueue) -> None:
    with pytest.raises(NotFoundError, match="job_none"):
        job_queue.do(request_signal, "job_none", Signal.STOP)
    with pytest.raises(NotFoundError):
        job_queue.do(request_cancel, "job_none")
