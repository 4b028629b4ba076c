"""Documents with every required key, as the api sends them, for tests of the code that reads them."""

from __future__ import annotations

from typing import Any

EVENTS = {"Content-Type": "text/event-stream; charset=utf-8"}
"""The headers of a response that streams events."""
TIME = "2026-01-31T12:00:00Z"


def job(**changes: Any) -> dict[str, Any]:
    """Return a pending job as `GET /api/jobs/job_1` does; `changes` replace or add keys."""
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
    """Return a job event that did not change the status of the job; `changes` replace or add keys."""
    return {"id": 1, "attempt": 1, "event": "checkpoint", "actor": "worker", "details": {}, "at": TIME, **changes}


def experiment(**changes: Any) -> dict[str, Any]:
    """Return a finished experiment as `GET /api/experiments/{id}` does; `changes` replace or add keys."""
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
    """Return the metrics of an experiment without points; `changes` replace or add keys."""
    empty: dict[str, Any] = {"keys": [], "availableKeys": [], "totalPoints": 0, "series": {}, "diverged": {}}
    return {"experimentId": "exp", "mode": "historical", **empty, **changes}
