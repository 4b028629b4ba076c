"""The names of all keys, channels and queues in Redis, and the event types of the streams.

One stream per topic contains all event types of that topic, so one stream id is a position in all of them. An entry has
the fields `event` (one of the EVENT_ constants) and `data` (JSON). Celery keeps the messages of a queue in a list whose
key is the name of the queue.
"""

from __future__ import annotations

from typing import Final

TRAINING_QUEUE: Final = "training"
GENERATE_QUEUE: Final = "generate"
HEALTH_QUEUE: Final = "health"
"""Queue for maintenance passes (`common.jobs.maintenance`) that an operator requests while the health process is
down."""

EVENT_METRICS = "metrics"
"""data: {"points": [{"step", "time", "attempt", "values": {name: number}}]}, one stream entry per flush of
`MetricsWriter`."""
EVENT_RL_METRICS = "rl-metrics"
"""data: the same as for EVENT_METRICS, with the metrics of controller training."""
EVENT_REWIND = "rewind"
"""data: {"attempt", "step"}. This attempt resumes after `step`, so later points of earlier attempts are void."""
EVENT_STATUS = "status"
"""data: {"step", "totalSteps", "phase", …}, the progress of the running attempt."""
EVENT_LOG_LINES = "log-lines"
"""data: {"attempt", "lines": [{"n", "text"}]}, `n` from 0 within the attempt."""
EVENT_JOB_UPDATE = "job-update"
"""data: the job as the api shows it; written by the outbox relay only."""
EVENT_CHECKPOINT = "checkpoint"
"""data: {"name", "step", "attempt", "sha256", "sizeBytes"}."""
METRIC_KINDS = (EVENT_METRICS, EVENT_RL_METRICS)

JOBS_STREAM = "tidal:stream:jobs"
EPOCH = "tidal:epoch"
"""Key whose value is `<Redis time in ms>-<random>`. If the key is missing, it is set to a new value; a changed value
therefore shows that Redis was emptied."""
DESIRED_STATE_CHANNEL = "tidal:wishes"
"""Pub/sub channel; a message is the id of a job whose desired_state has changed."""
WORKERS = "tidal:workers"
"""Sorted set of worker names. The score is the time of the newest heartbeat in seconds since 1970."""
HEALTH = "tidal:health"
"""Heartbeat of the health process, a hash with a time to live: pid, host, sweptAt, published, …"""
COUNTERS = "tidal:counters"
"""Hash of counters of the processes that have no `/metrics` endpoint themselves."""
METRICS_DROPPED = "metricsDropped"
"""Field of COUNTERS: number of points that all instances of `MetricsWriter` have lost together."""
GENERATE_TTL_SECONDS = 120
"""Time to live of the marks of begun and cancelled generate requests. No generation takes longer."""
GENERATE_STREAM_SECONDS = 3600
"""Time to live of the event stream of an api process after its last entry, in case the process is only suspended."""
STREAM_TTL_AFTER_END_SECONDS = 3600
"""Time to live of the streams of a job and its experiment after the end of the job."""


def job_stream(job_id: str) -> str:
    """Return the key of the stream of one job: job-update, status, log-lines."""
    return f"tidal:stream:job:{job_id}"


def experiment_stream(experiment_id: str) -> str:
    """Return the key of the stream of one experiment: metrics, rl-metrics, rewind, checkpoint, and its job's events."""
    return f"tidal:stream:experiment:{experiment_id}"


def heartbeat(worker: str) -> str:
    """Return the key of the heartbeat of one worker: a hash with a time to live."""
    return f"tidal:heartbeat:{worker}"


def generate_request(request_id: str) -> str:
    """Return the key of one generate request: JSON with a time to live."""
    return f"tidal:generate:request:{request_id}"


def generate_stream(request_id: str) -> str:
    """Return the key of the stream with a request's events. The id begins with the name of the stream's reader."""
    return f"tidal:stream:generate:{request_id.partition('.')[0]}"


def generate_begun(request_id: str) -> str:
    """Return the key that an engine sets when it begins a request, so that further messages about it are ignored."""
    return f"tidal:generate:begun:{request_id}"


def presence(name: str) -> str:
    """Return the channel that an api process or engine subscribes to while it runs (`common.redis.presence`)."""
    return f"tidal:present:{name}"


def generate_cancelled(request_id: str) -> str:
    """Return the key that is set to cancel a request: its client has disconnected, or a deadline has passed."""
    return f"tidal:generate:cancelled:{request_id}"
