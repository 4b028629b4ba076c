"""Creates all Redis clients, with the time-outs, retries and connection limits of each kind of caller.

    client = connect(settings.redis_url, FEED)              # redis.Redis
    client = connect_async(settings.redis_url, requests(50))  # redis.asyncio.Redis

A `Need` holds how long a caller waits for a connection and for an answer, and how often redis-py retries a failed
command. Both functions return at once; the first command connects. Leaves out: Celery, which opens its own connections
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
"""Idle seconds after which a connection is checked before the next command uses it."""
LONGEST_CONNECT_SECONDS = 5.0
"""Most seconds that a blocking reader waits for a connection."""


@dataclass(frozen=True)
class ClientOptions:
    """Options of a Redis client for one kind of caller; all durations are in seconds."""

    answer: float
    """Most seconds to wait for the answer to one command."""
    connect: float
    """Most seconds to wait for a connection."""
    retries: int = 0
    """How often redis-py retries a failed command; most callers retry themselves or report the error."""
    backoff: tuple[float, float] | None = None
    """Shortest and longest delay before a retry in seconds; None: retry at once."""
    check: int = 0
    """Idle seconds after which a connection is checked before its next use; 0: it is never checked."""
    text: bool = True
    """Whether answers are decoded to text instead of returned as bytes."""
    most: int | None = None
    """Most simultaneous connections; None: the limit of redis-py."""
    queue: float | None = None
    """Most seconds to wait for a free connection if `most` are in use; None: fail at once. Asynchronous only."""


COMMANDS = ClientOptions(answer=5.0, connect=5.0, check=CHECK_SECONDS)
"""For short commands of callers that can wait some seconds: the publisher, and checks whether Redis answers."""
WORKER_COMMANDS = ClientOptions(answer=2.0, connect=2.0)
"""For threads of workers, which must not block for long and retry failed commands themselves."""
DISPLAY_READS = ClientOptions(answer=0.5, connect=0.5)
"""For reads whose result is only displayed; the caller continues without an answer."""
LONG_COMMAND = ClientOptions(answer=10.0, connect=5.0)
"""For a single command that affects all keys, such as FLUSHDB."""
REPLIES = ClientOptions(answer=5.0, connect=2.0, retries=3, backoff=(0.05, 1.0), check=CHECK_SECONDS, text=False)
"""For the engine, which reads requests and writes all replies; tokens must not be delayed for long."""
FINAL_REPLIES = ClientOptions(answer=5.0, connect=2.0, text=False)
"""For the host of the engine, which ends the requests of an engine that has died."""


def requests(most: int) -> ClientOptions:
    """Return the need of HTTP requests: short commands, and a wait for a free connection when `most` are in use."""
    return ClientOptions(answer=5.0, connect=5.0, retries=1, check=CHECK_SECONDS, most=most, queue=5.0)


def deciding(most: int) -> ClientOptions:
    """Return the need of the rate limiters, which have their own deadline and can decide without an answer."""
    return ClientOptions(answer=1.0, connect=1.0, check=CHECK_SECONDS, most=most)


def blocking_reads(block_milliseconds: int) -> ClientOptions:
    """Return the need of stream readers that block for up to `block_milliseconds`; each one occupies a connection."""
    answer = block_milliseconds / 1000 + 10
    connect = min(answer, LONGEST_CONNECT_SECONDS)
    return ClientOptions(answer=answer, connect=connect, check=CHECK_SECONDS, most=5000)


def connect(url: str | SecretStr, need: ClientOptions) -> redis.Redis:
    """Return a client that all threads of a process may share."""
    return redis.Redis.from_url(_plain(url), retry=Retry(_backoff(need), need.retries), **_options(need))


def connect_async(url: str | SecretStr, need: ClientOptions) -> AsyncRedis:
    """Return a client for one event loop; closing the client closes its connections."""
    options = _options(need) | {"retry": AsyncRetry(_backoff(need), need.retries)}
    if need.queue is None:
        return AsyncRedis.from_pool(ConnectionPool.from_url(_plain(url), **options))
    return AsyncRedis.from_pool(BlockingConnectionPool.from_url(_plain(url), timeout=need.queue, **options))


def _options(need: ClientOptions) -> dict[str, Any]:
    limit = {} if need.most is None else {"max_connections": need.most}
    return limit | {
        "socket_timeout": need.answer,
        "socket_connect_timeout": need.connect,
        "health_check_interval": need.check,
        "decode_responses": need.text,
    }


def _backoff(need: ClientOptions) -> AbstractBackoff:
    if need.backoff is None:
        return NoBackoff()
    base, cap = need.backoff
    return ExponentialBackoff(cap=cap, base=base)


def _plain(url: str | SecretStr) -> str:
    return url.get_secret_value() if isinstance(url, SecretStr) else url
