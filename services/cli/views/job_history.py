"""Derives the attempts of a job from its events: the worker, the first step and the end of each attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidal_client import JobEvent
from tidal_client.vocabulary import TERMINAL, JobStatus

_WITHOUT_WORKER = frozenset({JobStatus.PENDING, JobStatus.PAUSED}) | TERMINAL
"""Statuses in which no worker runs the job."""


@dataclass(frozen=True)
class Attempt:
    """One execution of a job."""

    number: int
    worker: str
    began: datetime
    ended: datetime | None
    """Time at which the attempt ended; None while it runs."""
    begin: str
    """Where the training began: `after step 40` or `from the beginning`."""
    checkpoint: str
    """The newest checkpoint that the attempt wrote, such as `step 80`."""
    ending: str


def attempts(events: Sequence[JobEvent]) -> list[Attempt]:
    """Return the attempts of a job, oldest first. `events` are all events of the job, oldest first."""
    found: list[Attempt] = []
    for event in events:
        if event.event == "claimed":
            found.append(
                Attempt(
                    number=event.attempt,
                    worker=str(event.details.get("worker", "")),
                    began=event.at,
                    ended=None,
                    begin="",
                    checkpoint="",
                    ending="",
                )
            )
        elif found and found[-1].ended is None:
            found[-1] = _with(found[-1], event)
    return found


def _with(attempt: Attempt, event: JobEvent) -> Attempt:
    changes: dict[str, Any] = {}
    details = event.details
    if event.event == "resumed" and "step" in details:
        changes["begin"] = f"after step {details['step']}"
    elif event.event == "running" and not attempt.begin:
        changes["begin"] = "from the beginning"
    elif event.event == "checkpoint":
        changes["checkpoint"] = f"step {details.get('step')}"
    elif event.to_status == JobStatus.STALE:
        changes["ending"] = "lease lost"
    elif event.event == "healed":
        changes["ending"] = ""
    elif event.event == "restored":
        changes = {"ended": event.at, "ending": "lost when the job was restored from a backup"}
    elif event.to_status in _WITHOUT_WORKER:
        changes = {"ended": event.at, "ending": ending(event.event, details)}
    return Attempt(**{**vars(attempt), **changes})


def ending(event: str, details: Mapping[str, Any]) -> str:
    """Describe how an attempt ended, such as `restarted: worker_lost` or `failed: user_error, no such corpus`."""
    reasons = [str(details[key]) for key in ("reason", "code", "message") if details.get(key)]
    killed = " (killed)" if details.get("killed") else ""
    return f"{event}: {', '.join(reasons)}{killed}" if reasons else f"{event}{killed}"


def describe_events(events: Sequence[JobEvent]) -> list[tuple[JobEvent, str]]:
    """Return (event, details as text) for each event. Of consecutive checkpoints, only the newest is returned."""
    lines: list[tuple[JobEvent, str]] = []
    consecutive = 0
    for event in events:
        repeated = event.event == "checkpoint" and bool(lines) and lines[-1][0].event == "checkpoint"
        consecutive = consecutive + 1 if repeated else 1
        if repeated:
            lines.pop()
        lines.append((event, details_text(event) + (f", the newest of {consecutive}" if consecutive > 1 else "")))
    return lines


def details_text(event: JobEvent) -> str:
    """Return the details of an event as text. Hashes and empty values are omitted."""
    details = {
        key: value for key, value in event.details.items() if key not in _HASHES and value not in (None, "", [], {})
    }
    return ", ".join(f"{key} {_short(value)}" for key, value in details.items())


_HASHES = frozenset({"sha256", "digest"})


def _short(value: Any) -> str:
    text = str(value).split("\n", 1)[0]
    return text if len(text) <= 80 else f"{text[:79]}…"
