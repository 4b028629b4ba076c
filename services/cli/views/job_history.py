"""The attempts of a job, put together from its events: who ran it, from which step, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidal_client import JobEvent
from tidal_client.vocabulary import TERMINAL, JobStatus

_LEFT = frozenset({JobStatus.PENDING, JobStatus.PAUSED}) | TERMINAL
"""Statuses in which no worker runs the job."""


@dataclass(frozen=True)
class Attempt:
    """One execution."""

    number: int
    worker: str
    began: datetime
    ended: datetime | None
    """None while it lasts."""
    begin: str
    """`after step 40`, `from the beginning`."""
    checkpoint: str
    """`step 80`: the newest it registered."""
    ending: str


def attempts(events: Sequence[JobEvent]) -> list[Attempt]:
    """In order; `events` oldest first."""
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
        changes = {"ended": event.at, "ending": "lost with the installation (restored from a backup)"}
    elif event.to_status in _LEFT:
        changes = {"ended": event.at, "ending": ending(event.event, details)}
    return Attempt(**{**vars(attempt), **changes})


def ending(event: str, details: Mapping[str, Any]) -> str:
    """`restarted: worker_lost`, `failed: user_error, no such corpus`, `released: drain`."""
    why = [str(details[key]) for key in ("reason", "code", "message") if details.get(key)]
    killed = " (killed)" if details.get("killed") else ""
    return f"{event}: {', '.join(why)}{killed}" if why else f"{event}{killed}"


def describe_events(events: Sequence[JobEvent]) -> list[tuple[JobEvent, str]]:
    """Return events with details as text. Of consecutive checkpoints only the newest is listed, with their number."""
    lines: list[tuple[JobEvent, str]] = []
    row = 0
    for event in events:
        again = event.event == "checkpoint" and bool(lines) and lines[-1][0].event == "checkpoint"
        row = row + 1 if again else 1
        if again:
            lines.pop()
        lines.append((event, remark(event) + (f", the newest of {row}" if row > 1 else "")))
    return lines


def remark(event: JobEvent) -> str:
    """What the details of an event say, hashes left out."""
    said = {
        key: value for key, value in event.details.items() if key not in _HASHES and value not in (None, "", [], {})
    }
    return ", ".join(f"{key} {_short(value)}" for key, value in said.items())


_HASHES = frozenset({"sha256", "digest"})


def _short(value: Any) -> str:
    text = str(value).split("\n", 1)[0]
    return text if len(text) <= 80 else f"{text[:79]}…"
