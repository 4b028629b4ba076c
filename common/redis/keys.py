"""The names of everything in Redis, and the event types of its streams. Pure strings; nothing here connects.

One stream per topic carries all event types of that topic, so one stream id is one position in it. An entry has the
fields `event` (one of the EVENT_ constants) and `data` (JSON). Celery keeps the messages of a queue in a list that has
the name of the queue.
"""

from __future__ import annotations

from typing import Final

TRAINING_QUEUE: Final = "training"
GENERATE_QUEUE: Final = "generate"
HEALTH_QUEUE: Final = "health"
"""Work by hand when the health loop is down; every worker listens to it."""

EVENT_METRICS = "metrics"
"""data: {"points": [{"step", "time", "attempt", "values": {name: number}}]}, one entry per flush."""
EVENT_RL_METRICS = "rl-metrics"
"""Like EVENT_METRICS, for controller training."""
EVENT_REWIND = "rewind"
"""data: {"attempt", "step"}: the named attempt begins after `step`; later points of earlier attempts are void."""
EVENT_STATUS = "status"
"""data: heartbeat of the running attempt: {"step", "totalSteps", "phase", …}."""
EVENT_LOG_LINES = "log-lines"
"""data: {"attempt", "lines": [{"n", "text"}]}, `n` from 0 within the attempt."""
EVENT_JOB_UPDATE = "job-update"
"""data: the job as the api shows it; written by the outbox relay only."""
EVENT_CHECKPOINT = "checkpoint"
"""data: {"name", "step", "attempt", "sha256", "sizeBytes"}."""
METRIC_KINDS = (EVENT_METRICS, EVENT_RL_METRICS)

JOBS_STREAM = "tidal:stream:jobs"
EPOCH = "tidal:epoch"
"""`<Redis time, ms>-<random>`, set once per life of the Redis data; another value means that Redis was emptied."""
WISHES_CHANNEL = "tidal:wishes"
"""Pub/sub channel; a message is the id of a job whose desired_state has changed."""
WORKERS = "tidal:workers"
"""Sorted set of worker names, scored by the time of the newest heartbeat, seconds since 1970."""
HEALTH = "tidal:health"
"""Heartbeat of the health process, a hash with a time to live: pid, host, sweptAt, published, …"""
COUNTERS = "tidal:counters"
"""Hash of counters that processes without a `/metrics` of their own add to."""
METRICS_DROPPED = "metricsDropped"
"""Field of COUNTERS: points that a `MetricsWriter` lost."""
GENERATE_TTL_SECONDS = 120
"""Life of the marks of a generate request, that it was begun or cancelled: as long as a generation may take."""
GENERATE_STREAM_SECONDS = 3600
"""Life of the token stream of an api process after the last entry; an api that was suspended reads on within it."""
STREAM_TTL_AFTER_END_SECONDS = 3600
"""Life of a job's streams once the job has ended."""


def job_stream(job_id: str) -> str:
    """Stream of one job: job-update, status, log-lines."""
    return f"tidal:stream:job:{job_id}"


def experiment_stream(experiment_id: str) -> str:
    """Stream of one experiment: metrics, rl-metrics, rewind, status, checkpoint, log-lines, job-update."""
    return f"tidal:stream:experiment:{experiment_id}"


def heartbeat(worker: str) -> str:
    """Hash of one worker, with a time to live."""
    return f"tidal:heartbeat:{worker}"


def generate_request(request_id: str) -> str:
    """JSON of one generate request, with a time to live."""
    return f"tidal:generate:request:{request_id}"


def generate_stream(request_id: str) -> str:
    """Stream with the tokens of a generate request: that of its reader, the part of the id before the dot."""
    return f"tidal:stream:generate:{request_id.partition('.')[0]}"


def generate_begun(request_id: str) -> str:
    """Name of the engine that has looked for the request, so that a second message about it is left alone."""
    return f"tidal:generate:begun:{request_id}"


def presence(name: str) -> str:
    """Channel that the api process or engine of this name subscribes to while it lives (`common.redis.presence`)."""
    return f"tidal:present:{name}"


def generate_cancelled(request_id: str) -> str:
    """Set when the client of a generate request went away."""
    return f"tidal:generate:cancelled:{request_id}"
