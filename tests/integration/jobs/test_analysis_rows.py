"""The analysis a job makes: one row per job, written by the attempt that owns it, gone with its experiment."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from common.db import downgrade, make_engine, upgrade
from common.errors import LeaseLostError
from common.jobs.queue import release, save_analysis
from common.jobs.status import JobStatus
from tests.integration.jobs.desk import Desk


def result(seed: int) -> dict[str, Any]:
    """With a token that PostgreSQL's jsonb would refuse."""
    return {"kind": "single", "request": {"seed": seed}, "trajectories": [{"tokenTexts": ["\x00", "é"]}]}


def test_an_analysis_told_twice_is_one_row_with_the_newest_result(desk: Desk) -> None:
    job_id = desk.bring(JobStatus.RUNNING, "analysis")
    desk.do(save_analysis, job_id, 1, result=result(1))
    desk.do(save_analysis, job_id, 1, result=result(1))
    desk.do(release, job_id, 1)
    second = desk.claim("worker-2")
    assert second is not None and second.attempt == 2
    desk.do(save_analysis, job_id, 2, result=result(2))
    [(experiment, kind, seed, stored)] = desk.rows(
        "SELECT experiment_id, kind, request ->> 'seed', result::text FROM analyses"
    )
    assert (experiment, kind, seed) == (desk.job(job_id).experiment_id, "single", "2")
    assert '["\\u0000", "\\u00e9"]' in stored


def test_an_attempt_that_lost_its_lease_saves_nothing(desk: Desk) -> None:
    job_id = desk.bring(JobStatus.RUNNING, "analysis")
    desk.do(release, job_id, 1)
    with pytest.raises(LeaseLostError):
        desk.do(save_analysis, job_id, 1, result=result(1))
    assert desk.rows("SELECT id FROM analyses") == []


def test_an_analysis_goes_with_its_experiment(desk: Desk) -> None:
    job_id = desk.bring(JobStatus.RUNNING, "analysis")
    desk.do(save_analysis, job_id, 1, result=result(1))
    desk.do(lambda session: session.execute(text("DELETE FROM experiments")))
    assert desk.rows("SELECT id FROM analyses") == []


def test_the_migration_goes_down_past_analyses_that_exist(desk: Desk, database_url: str) -> None:
    kept = desk.bring(JobStatus.RUNNING)
    desk.do(save_analysis, desk.bring(JobStatus.RUNNING, "analysis"), 1, result=result(1))
    downgrade(database_url, "0002")
    engine = make_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT id, type FROM jobs")).all() == [(kept, "lm-training")]
        assert connection.scalar(text("SELECT to_regclass('analyses')")) is None
    engine.dispose()
    upgrade(database_url)
    assert desk.rows("SELECT id FROM analyses") == []
