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
from tests.integration.jobs.desk import Desk
from tidal_client.vocabulary import JobStatus

S = JobStatus


def test_renewal_extends_the_lease_and_returns_the_desired_state(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, -1.0)
    desk.do(request_cancel, job_id)
    renewal = desk.do(renew, job_id, 1, desk.settings)
    assert (renewal.healed, renewal.desired_state, renewal.requested_state.cancel_requested) == (False, "stop", True)
    assert 0 <= renewal.requested_state.since_seconds < 30
    assert 50 < desk.sql("SELECT extract(epoch FROM lease_expires_at - now()) FROM jobs") <= 60


def test_an_expired_lease_can_be_renewed_before_the_reaper_marks_it(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, 3600)
    assert desk.do(renew, job_id, 1, desk.settings).healed is False


def test_the_same_owner_heals_within_the_quarantine(desk: Desk) -> None:
    job_id = desk.bring(S.COMPLETING)
    desk.lapse(job_id, 5)
    assert desk.do(mark_stale) == 1
    assert desk.status(job_id) == "stale"
    assert desk.do(renew, job_id, 1, desk.settings).healed is True
    assert desk.history(job_id)[-2:] == [("stale", "completing", "stale"), ("healed", "stale", "completing")]


def test_another_write_of_the_owner_heals_too(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, 5)
    desk.do(mark_stale)
    assert desk.do(complete_job, job_id, 1) == S.COMPLETED


def test_after_the_quarantine_only_the_reaper_decides(desk: Desk) -> None:
    job_id = desk.bring(S.RUNNING)
    desk.lapse(job_id, desk.settings.quarantine_seconds + 1)
    desk.do(mark_stale)
    with pytest.raises(LeaseLostError):
        desk.do(renew, job_id, 1, desk.settings)
    assert desk.status(job_id) == "stale"
