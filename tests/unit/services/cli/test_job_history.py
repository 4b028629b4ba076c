"""The worker, the first step and the end of each attempt are derived from the events of the job."""

from __future__ import annotations

from typing import Any

from services.cli.views.job_history import attempts, describe_events
from tidal_client import JobEvent


def events(*rows: tuple[int, str, str | None, dict[str, Any]]) -> list[JobEvent]:
    return [
        JobEvent.model_validate(
            {
                "id": number,
                "attempt": attempt,
                "event": event,
                "actor": "worker",
                "toStatus": to,
                "details": details,
                "at": f"2026-01-31T12:00:{number:02}Z",
            }
        )
        for number, (attempt, event, to, details) in enumerate(rows)
    ]


JOB_EVENTS = events(
    (0, "submitted", "pending", {}),
    (1, "claimed", "provisioning", {"worker": "one"}),
    (1, "running", "running", {}),
    (1, "checkpoint", None, {"step": 5, "sha256": "ab"}),
    (1, "checkpoint", None, {"step": 10, "sha256": "cd"}),
    (1, "stale", "stale", {"worker": "one"}),
    (1, "restarted", "pending", {"reason": "worker_lost", "worker": "one"}),
    (2, "claimed", "provisioning", {"worker": "two"}),
    (2, "resumed", None, {"step": 10}),
    (2, "running", "running", {}),
    (2, "stale", "stale", {}),
    (2, "healed", "running", {}),
    (100, "restored", None, {"attempt": 2}),
    (100, "stale", "stale", {}),
    (100, "restarted", "pending", {"reason": "worker_lost"}),
    (101, "claimed", "provisioning", {"worker": "three"}),
    (101, "failed", "failed", {"code": "bad_data", "message": "no such corpus"}),
)


def test_every_attempt_has_its_beginning_and_its_ending() -> None:
    shown = [(run.number, run.worker, run.begin, run.checkpoint, run.ending) for run in attempts(JOB_EVENTS)]
    assert shown == [
        (1, "one", "from the beginning", "step 10", "restarted: worker_lost"),
        (2, "two", "after step 10", "", "lost when the job was restored from a backup"),
        (101, "three", "", "", "failed: bad_data, no such corpus"),
    ]


def test_an_attempt_that_lasts_has_no_end_and_a_healed_one_goes_on() -> None:
    (_, second) = attempts(JOB_EVENTS[:12])
    assert (second.ended, second.ending) == (None, "")
    assert attempts(JOB_EVENTS[:11])[-1].ending == "lease lost"
    assert attempts(JOB_EVENTS[:1]) == []


def test_checkpoints_in_a_row_are_one_line_without_hashes() -> None:
    lines = [(event.event, details) for event, details in describe_events(JOB_EVENTS[:6])]
    assert lines[3:] == [("checkpoint", "step 10, the newest of 2"), ("stale", "worker one")]
