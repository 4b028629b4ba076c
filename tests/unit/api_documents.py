"""What the api sends, whole, for tests of who reads it: each document has every key that is never left out."""

from __future__ import annotations

from typing import Any

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}
"""The header of a stream."""
TIME = "2026-01-31T12:00:00Z"


def job(**changes: Any) -> dict[str, Any]:
    """A pending job as `GET /api/jobs/job_1` gives it."""
    return {
        "id": "job_1",
        "type": "lm-training",
        "status": "pending",
        "desiredState": "run",
        "experimentId": "exp",
        "tags": [],
        "queue": "training",
        "progress": {"step": None, "totalSteps": None, "etaSeconds": None, "phase": None},
        "signals": [],
        "createdAt": TIME,
        "updatedAt": TIME,
        "payload": {},
        **changes,
    }


def job_event(**changes: Any) -> dict[str, Any]:
    """A change of a job that left its status."""
    return {"id": 1, "attempt": 1, "event": "checkpoint", "actor": "worker", "details": {}, "at": TIME, **changes}


def experiment(**changes: Any) -> dict[str, Any]:
    """A finished experiment as `GET /api/experiments/{id}` gives it."""
    return {
        "id": "exp",
        "type": "lm",
        "tags": [],
        "status": "completed",
        "createdAt": TIME,
        "updatedAt": TIME,
        "metricNames": [],
        "rlMetricNames": [],
        "results": [],
        "sizeBytes": 0,
        **changes,
    }


def metrics(**changes: Any) -> dict[str, Any]:
    """Metrics without a point."""
    empty: dict[str, Any] = {"keys": [], "availableKeys": [], "totalPoints": 0, "series": {}, "diverged": {}}
    return {"experimentId": "exp", "mode": "historical", **empty, **changes}
