"""A missing health process is reported, and so are failures of its maintenance passes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common.redis.heartbeat import maintenance_problem


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_missing_health_process_is_reported_with_the_remedy() -> None:
    assert "python -m services.health" in maintenance_problem(None, None, 5.0)


def test_successful_maintenance_passes_and_a_short_outage_are_no_problem() -> None:
    assert maintenance_problem(ago(1), "", 5.0) == ""
    assert maintenance_problem(ago(50), "connection refused", 5.0) == ""


def test_maintenance_passes_that_fail_for_more_than_a_minute_are_reported_with_the_reason() -> None:
    assert "70 s ago" in maintenance_problem(ago(70), "connection refused", 5.0)
    assert "connection refused" in maintenance_problem(ago(70), "connection refused", 5.0)
    assert maintenance_problem(ago(70), "", 20.0) == "", "six rounds of 20 s have not passed"
