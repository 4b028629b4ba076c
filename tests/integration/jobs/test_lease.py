"""The owner renews its lease, and can recover a stale job until the quarantine (a time after the expiry) ends."""

from __future__ import annotations

import pytest

from common.errors import LeaseLostError
from common.jobs.lease import renew
from common.jobs.queue import (
    complete_job,
)
from common.jobs.reaper import mark_stale
from common.jobs.signals import request_cancel
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus

S = JobStatus


def test_renewal_extends_the_lease_and_returns_the_desired_state(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, -1.0)
    job_queue.do(request_cancel, job_id)
    renewal = job_queue.do(renew, job_id, 1, job_queue.settings)
    assert (renewal.healed, renewal.desired_state, renewal.requested_state.cancel_requested) == (False, "stop", True)
    assert 0 <= renewal.requested_state.since_seconds < 30
    assert 50 < job_queue.sql("SELECT extract(epoch FROM lease_expires_at - now()) FROM jobs") <= 60


def test_an_expired_lease_can_be_renewed_before_the_reaper_marks_it(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, 3600)
    assert job_queue.do(renew, job_id, 1, job_queue.settings).healed is False


def test_the_same_owner_heals_within_the_quarantine(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.COMPLETING)
    job_queue.lapse(job_id, 5)
    assert job_queue.do(mark_stale) == 1
    assert job_queue.status(job_id) == "stale"
    assert job_queue.do(renew, job_id, 1, job_queue.settings).healed is True
    assert job_queue.history(job_id)[-2:] == [("stale", "completing", "stale"), ("healed", "stale", "completing")]


def test_another_write_of_the_owner_heals_too(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, 5)
    job_queue.do(mark_stale)
    assert job_queue.do(complete_job, job_id, 1) == S.COMPLETED


def test_after_the_quarantine_only_the_reaper_decides(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.lapse(job_id, job_queue.settings.quarantine_seconds + 1)
    job_queue.do(mark_stale)
    with pytest.raises(LeaseLostError):
        job_queue.do(renew, job_id, 1, job_queue.settings)
    assert job_queue.status(job_id) == "stale"
