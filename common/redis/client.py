"""The one place that opens connections to Redis, and the list of what callers need of them.

    client = connect(settings.redis_url, FEED)              # redis.Redis
    client = connect_async(settings.redis_url, requests(50))  # redis.asyncio.Redis

A `Need` says how long a caller waits for a connection and for an answer, and whether redis-py tries a failed command
again. Both functions return at once: the first command connects. Leaves out: Celery, which opens its own connections
(`common.redis.celery_settings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import AbstractBackoff, ExponentialBackoff, NoBackoff
from redis.retry import Retry

CHECK_SECONDS = 25
"""A connection that was idle for so long is checked before the next command uses it."""
LONGEST_CONNECT_SECONDS = 5.0
"""No caller waits longer for a connection."""


@dataclass(frozen=True)
class Need:
    """What a caller needs of its client; all durations in seconds."""

    answer: float
    """Longest wait for the answer to one command."""
    connect: float
    """Longest wait for a connection."""
    retries: int = 0
    """How often redis-py sends a failed command again; most callers try again by themselves, or report the error."""
    backoff: tuple[float, float] | None = None
    """Shortest and longest pause before such a retry; None: it is sent again at once."""
    check: int = 0
    """Check a connection that was idle for so many seconds; 0: never."""
    text: bool = True
    """Answers are text instead of bytes."""
    most: int | None = None
    """Most connections at the same time; None: the limit of redis-py."""
    queue: float | None = None
    """With `most`: longest wait until one of them is free; None: fail at once. Asynchronous clients only."""


COMMANDS = Need(answer=5.0, connect=5.0, check=CHECK_SECONDS)
"""Short commands of a thread that can wait for some seconds: the publisher, and checks whether Redis answers."""
FEED = Need(answer=2.0, connect=2.0)
"""Threads of workers that must not stand still for long, and that try again by themselves."""
GLANCE = Need(answer=0.5, connect=0.5)
"""A look for display; the caller goes on without an answer."""
LONG_COMMAND = Need(answer=10.0, connect=5.0)
"""One command that works on all keys."""
REPLIES = Need(answer=5.0, connect=2.0, retries=3, backoff=(0.05, 1.0), check=CHECK_SECONDS, text=False)
"""The engine, which reads requests and writes the replies of all of them; tokens must not wait for long."""
LAST_REPLIES = Need(answer=5.0, connect=2.0, text=False)
"""The host of the engine, which ends the requests that an ended engine left; they can wait, but not get lost."""


def requests(most: int) -> Need:
    """Short commands of HTTP requests; when `most` connections are in use, the next request waits for one."""
    return Need(answer=5.0, connect=5.0, retries=1, check=CHECK_SECONDS, most=most, queue=5.0)


def deciding(most: int) -> Need:
    """Commands of a caller with a deadline of its own, which decides without an answer: the rate limiters."""
    return Need(answer=1.0, connect=1.0, check=CHECK_SECONDS, most=most)


def blocking_reads(block_milliseconds: int) -> Need:
    """Readers that wait up to so long for new entries of a stream; each of them occupies a connection."""
    answer = block_milliseconds / 1000 + 10
    connect = min(answer, LONGEST_CONNECT_SECONDS)
    return Need(answer=answer, connect=connect, check=CHECK_SECONDS, most=5000)


def connect(url: str | SecretStr, need: Need) -> redis.Redis:
    """A client for one process, for use from any thread."""
    return redis.Redis.from_url(_plain(url), retry=Retry(_backoff(need), need.retries), **_options(need))


def connect_async(url: str | SecretStr, need: Need) -> AsyncRedis:
    """A client for one event loop; closing it closes its connections."""
    options = _options(need) | {"retry": AsyncRetry(_backoff(need), need.retries)}
    if need.queue is None:
        return AsyncRedis.from_pool(ConnectionPool.from_url(_plain(url), **options))
    return AsyncRedis.from_pool(BlockingConnectionPool.from_url(_plain(url), timeout=need.queue, **options))


def _options(need: Need) -> dict[str, Any]:
    limit = {} if need.most is None else {"max_connections": need.most}
    return limit | {
        "socket_timeout": need.answer,
        "socket_connect_timeout": need.connect,
        "health_check_interval": need.check,
        "decode_responses": need.text,
    }


def _backoff(need: Need) -> AbstractBackoff:
    if need.backoff is None:
        return NoBackoff()
    base, cap = need.backoff
    return ExponentialBackoff(cap=cap, base=base)


def _plain(url: str | SecretStr) -> str:
    return url.get_secret_value() if isinstance(url, SecretStr) else url
