"""The metrics of `/metrics` that do not come from this process: database, Redis, disk and running trainings.

They are read at each scrape. If the database is unavailable, its `…_up` gauge is 0 and only its metrics are missing;
the same holds for Redis. `docs/alerts.yml` contains alerts for these metrics. `http_metrics` contains the metrics of
this process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from common.db import Job, Outbox
from common.disk import MIB
from common.metrics import names
from common.redis import keys
from common.redis.keys import HEALTH
from services.api.context import Context
from tidal_client.vocabulary import ACTIVE, WAITING_FOR_DISK, JobStatus

REDIS_SECONDS = 2.0
LOOK_BACK = 50
"""Number of entries at the end of an experiment's stream in which the newest value of each metric is searched for."""
MAX_TRAININGS = 100
"""Maximum number of running trainings whose speed is reported."""


async def exposition(context: Context) -> bytes:
    """Return all metrics in Prometheus's text format: first those of this process, then those read at each scrape."""
    registry = CollectorRegistry()
    running = await run_in_threadpool(_database, context, registry)
    await _redis(context, registry, running)
    await run_in_threadpool(_disk, context, registry)
    return generate_latest(context.metrics.registry) + generate_latest(registry)


def _database(context: Context, registry: CollectorRegistry) -> list[str]:
    """Add the metrics that are read from the database. Return the ids of the experiments that have running jobs."""
    up = Gauge("tidal_database_up", "1 if the metrics of the database could be read, otherwise 0", registry=registry)
    try:
        with context.sessions() as session:
            by_status = select(Job.status, func.count()).group_by(Job.status)
            counts: dict[str, int] = dict(session.execute(by_status).all())
            age = session.scalar(
                select(func.extract("epoch", func.now() - func.min(Job.created_at))).where(
                    Job.status == JobStatus.PENDING
                )
            )
            waiting = session.scalar(select(func.count()).where(Outbox.published_at.is_(None)))
            held = select(Job.lease_expires_at > func.now(), func.count()).where(Job.lease_owner.is_not(None))
            leases: dict[bool, int] = dict(session.execute(held.group_by(Job.lease_expires_at > func.now())).all())
            waiting_query = select(func.count()).where(Job.status.in_(ACTIVE), Job.progress_phase == WAITING_FOR_DISK)
            waiting_for_disk = session.scalar(waiting_query)
            running = session.scalars(
                select(Job.experiment_id).where(Job.status.in_(ACTIVE)).order_by(Job.id).limit(MAX_TRAININGS)
            ).all()
    except SQLAlchemyError:
        up.set(0)
        return []
    up.set(1)
    jobs = Gauge("tidal_jobs", "Jobs by status", ["status"], registry=registry)
    for status in JobStatus:
        jobs.labels(status).set(counts.get(status, 0))
    Gauge("tidal_queue_age_seconds", "Age of the oldest pending job; 0 if no job is pending", registry=registry).set(
        age or 0
    )
    disk = Gauge("tidal_jobs_waiting_for_disk", "Jobs that wait for disk space", registry=registry)
    disk.set(waiting_for_disk or 0)
    Gauge("tidal_outbox_unpublished", "Messages not yet published to Redis", registry=registry).set(waiting or 0)
    lease = Gauge("tidal_leases", "Jobs that a worker has leased", ["state"], registry=registry)
    lease.labels("valid").set(leases.get(True, 0))
    lease.labels("expired").set(leases.get(False, 0))
    return list(running)


async def _redis(context: Context, registry: CollectorRegistry, running: list[str]) -> None:
    up = Gauge("tidal_redis_up", "1 if the metrics of Redis could be read, otherwise 0", registry=registry)
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            pipe = context.redis.pipeline(transaction=False)
            pipe.info("memory")
            pipe.hget(HEALTH, "sweptAt")
            pipe.hget(keys.COUNTERS, keys.METRICS_DROPPED)
            pipe.zcard(keys.WORKERS)
            for experiment in running:
                pipe.xrevrange(keys.experiment_stream(experiment), count=LOOK_BACK)
            memory, last_pass_at, dropped, workers, *streams = await pipe.execute()
    except (RedisError, OSError, TimeoutError):
        up.set(0)
        return
    up.set(1)
    used = Gauge("tidal_redis_memory_bytes", "Memory that Redis uses", registry=registry)
    used.set(memory["used_memory"])
    limit = Gauge("tidal_redis_memory_limit_bytes", "Memory limit of Redis; 0 means no limit", registry=registry)
    limit.set(memory["maxmemory"])
    Gauge("tidal_workers", "Workers that sent a heartbeat within the last day", registry=registry).set(workers)
    last_pass = Gauge(
        "tidal_reaper_last_success_timestamp_seconds",
        "Time of the last successful maintenance pass of the health process; 0 means never",
        registry=registry,
    )
    last_pass.set(datetime.fromisoformat(last_pass_at).timestamp() if last_pass_at else 0)
    registry.register(
        _Total(
            "tidal_metrics_dropped",
            "Metric points dropped because they could not be written to disk",
            int(dropped or 0),
        )
    )
    step = Gauge("tidal_step_seconds", "Time of one step of a running training", ["experiment"], registry=registry)
    speed = Gauge("tidal_tokens_per_second", "Throughput of a running training", ["experiment"], registry=registry)
    for experiment, entries in zip(running, streams, strict=True):
        values = newest_values(entries)
        if per_second := values.get(names.STEPS_PER_SECOND):
            step.labels(experiment).set(1 / per_second)
        if (tokens := values.get(names.TOKENS_PER_SECOND)) is not None:
            speed.labels(experiment).set(tokens)


def newest_values(entries: Iterable[tuple[str, dict[str, str]]]) -> dict[str, float]:
    """Return {metric: newest value}; `entries` are entries of a stream, newest first."""
    found: dict[str, float] = {}
    for _, fields in entries:
        if fields.get("event") not in keys.METRIC_KINDS:
            continue
        for point in reversed(json.loads(fields["data"])["points"]):
            for name, value in point["values"].items():
                if value is not None:
                    found.setdefault(name, value)
    return found


def _disk(context: Context, registry: CollectorRegistry) -> None:
    root = context.store.root
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    usage = shutil.disk_usage(existing)
    size = Gauge("tidal_disk_bytes", "Size of the disk of the artifact store", registry=registry)
    size.set(usage.total)
    Gauge("tidal_disk_free_bytes", "Free space on the disk of the artifact store", registry=registry).set(usage.free)
    reserve = Gauge("tidal_disk_reserve_bytes", "Free space below which training jobs wait", registry=registry)
    reserve.set(context.settings.disk_reserve_mb * MIB)


class _Total(Collector):
    """A Prometheus counter with a value that another process has counted."""

    def __init__(self, name: str, text: str, value: int) -> None:
        self._name, self._text, self._value = name, text, value

    def collect(self) -> Iterable[Any]:
        """Yield the counter."""
        yield CounterMetricFamily(self._name, self._text, value=self._value)
