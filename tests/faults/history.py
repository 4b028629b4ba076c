"""The history of all jobs in one database as plain values: rows, events, steps, metrics and files.

`read_history` collects it from PostgreSQL and the experiments folder. It reads them without the product's own code,
because the product is under test. The history is checked in `tests.faults.checker`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from tests.metrics_oracle import read_metrics


@dataclass(frozen=True)
class JobRow:
    """The row of a job after the test."""

    id: str
    type: str
    status: str
    attempt: int
    leased: bool = False


@dataclass(frozen=True)
class EventRow:
    """A row of `job_events`. `at` is in seconds on the host's monotonic clock; 0.0 means unknown."""

    job: str
    attempt: int
    event: str
    actor: str
    source: str | None = None
    target: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True)
class StepRun:
    """A step that an attempt executed.

    `began` and `ended` are in seconds on the monotonic clock. `state` is the fake trainer's state after the step: a
    hash of the state before the step and the number of the step.
    """

    job: str
    attempt: int
    step: int
    began: float
    ended: float
    state: str | None = None


@dataclass(frozen=True)
class MetricLine:
    """A line of a metrics archive, or an entry of a stream: a point, or a rewind to `step`."""

    attempt: int
    step: int
    rewind: bool = False


@dataclass(frozen=True)
class Final:
    """The final model of a job.

    `registered_by` and `registered_sha256` are from the database; `written_by` and `sha256` are from the file.
    """

    registered_by: int
    registered_sha256: str | None
    written_by: int
    sha256: str


@dataclass(frozen=True)
class History:
    """The history of all jobs in one database.

    The keys of mappings are job ids, except in `limits`: {job type: number of jobs that may run at the same time}.
    `accepted` contains the ids of the jobs whose submission was answered with 201.
    """

    jobs: tuple[JobRow, ...]
    events: tuple[EventRow, ...] = ()
    steps: tuple[StepRun, ...] = ()
    metrics: Mapping[str, tuple[MetricLine, ...]] = field(default_factory=dict)
    series: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """{job id: ((step, attempt), …)} of the points that the product's reader returns for charts."""
    streams: Mapping[str, tuple[MetricLine, ...]] = field(default_factory=dict)
    finals: Mapping[str, Final] = field(default_factory=dict)
    published: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)


def read_history(
    sessions: sessionmaker[Session],
    experiments_dir: Path,
    *,
    accepted: Collection[str] = (),
    limits: Mapping[str, int] | None = None,
    stream_of: redis.Redis | None = None,
) -> History:
    """Return the history of all jobs in the database.

    If `stream_of`, a Redis client with decoded replies, is given, the streams are read as well.
    """
    with sessions() as session:
        rows = session.execute(
            text("SELECT id, type, status, attempt, lease_owner IS NOT NULL, experiment_id FROM jobs ORDER BY id")
        ).all()
        events = session.execute(
            text(
                "SELECT job_id, attempt, event, actor, from_status, to_status, details, at FROM job_events ORDER BY id"
            )
        ).all()
        published = session.execute(
            text("SELECT job_id, payload->>'status' FROM outbox WHERE kind = 'job-update' ORDER BY id")
        ).all()
        models = session.execute(
            text("SELECT experiment_id, attempt, sha256 FROM checkpoints WHERE name = 'model.pth'")
        ).all()
    experiments = {row[0]: experiments_dir / str(row[5]) for row in rows}
    updates: dict[str, list[str]] = defaultdict(list)
    for job, status in published:
        updates[job].append(status)
    registered = {experiments_dir / str(name): (int(attempt), sha256) for name, attempt, sha256 in models}
    return History(
        jobs=tuple(JobRow(row[0], row[1], row[2], int(row[3]), bool(row[4])) for row in rows),
        events=tuple(
            EventRow(job, int(attempt), event, actor, source, target, details, _monotonic(at))
            for job, attempt, event, actor, source, target, details, at in events
        ),
        steps=tuple(step for folder in experiments.values() for step in read_steps(folder)),
        metrics={job: read_archive(folder) for job, folder in experiments.items()},
        series={
            job: tuple((point.step, point.attempt) for point in read_metrics(folder, "metrics"))
            for job, folder in experiments.items()
        },
        streams={row[0]: read_stream(stream_of, row[5]) for row in rows if stream_of is not None},
        finals={job: final for job, folder in experiments.items() if (final := _final(folder, registered))},
        published={job: tuple(updates[job]) for job in experiments},
        accepted=tuple(accepted),
        limits=dict(limits or {}),
    )


def read_steps(folder: Path) -> list[StepRun]:
    """Return the lines of `steps.jsonl`. An incomplete last line is ignored, because its writer was killed."""
    path = folder / "steps.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]
    return [
        StepRun(line["job"], line["attempt"], line["step"], line["began"], line["ended"], line.get("state"))
        for line in lines
    ]


def read_archive(folder: Path) -> tuple[MetricLine, ...]:
    """Return the lines of the metrics archive, ordered by attempt and segment."""
    lines: list[MetricLine] = []
    for path in sorted((folder / "metrics").glob("metrics-*.jsonl"), key=_segment):
        for raw in path.read_bytes().split(b"\n")[:-1]:
            line = json.loads(raw)
            if "rewind" in line:
                lines.append(MetricLine(line["rewind"]["attempt"], line["rewind"]["step"], rewind=True))
            else:
                lines.append(MetricLine(line["attempt"], line["step"]))
    return tuple(lines)


def read_stream(client: redis.Redis, experiment_id: str) -> tuple[MetricLine, ...]:
    """Return the points and rewinds in the stream of an experiment."""
    lines: list[MetricLine] = []
    entries: Any = client.xrange(f"tidal:stream:experiment:{experiment_id}")
    for _, entry in entries:
        data = json.loads(entry["data"])
        if entry["event"] == "metrics":
            lines += [MetricLine(point["attempt"], point["step"]) for point in data["points"]]
        elif entry["event"] == "rewind" and data["kind"] == "metrics":
            lines.append(MetricLine(data["attempt"], data["step"], rewind=True))
    return tuple(lines)


def _segment(path: Path) -> tuple[int, int]:
    _, attempt, number = path.stem.rsplit("-", 2)
    return int(attempt), int(number)


def _final(folder: Path, registered: Mapping[Path, tuple[int, str | None]]) -> Final | None:
    """Return the final model; None if it is not registered, not on the disk, or not written by a fake trainer."""
    path = folder / "model.pth"
    if folder not in registered or not path.exists():
        return None
    content = path.read_bytes()
    if not content.startswith(b"{"):
        return None
    attempt, sha256 = registered[folder]
    return Final(attempt, sha256, int(json.loads(content)["attempt"]), hashlib.sha256(content).hexdigest())


def _monotonic(at: datetime) -> float:
    """Convert a time of the database to seconds on the monotonic clock. The database runs on this host."""
    return at.timestamp() - (time.time() - time.monotonic())
