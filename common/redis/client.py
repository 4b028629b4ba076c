"""Creates all Redis clients, with the time-outs, retries and connection limits of each kind of caller.

    client = connect(settings.redis_url, COMMANDS)                    # redis.Redis
    client = connect_async(settings.redis_url, request_options(50))  # redis.asyncio.Redis

`ClientOptions` hold how long a caller waits for a connection and for an answer, and how often redis-py retries a failed
command. Both functions return at once; the client connects when it sends its first command. Celery opens its own
connections (`common.redis.celery_settings`).
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
"""Time in seconds after which an idle connection is checked before the next command uses it."""
LONGEST_CONNECT_SECONDS = 5.0
"""Longest time in seconds that a blocking reader waits for a connection."""


@dataclass(frozen=True)
class ClientOptions:
    """Options of a Redis client for one kind of caller; all durations are in seconds."""

    answer_timeout: float
    """Longest time to wait for the answer to one command."""
    connect_timeout: float
    """Longest time to wait until a connection is established."""
    retries: int = 0
    """Number of times that redis-py retries a failed command. Most callers retry it themselves or report the error."""
    backoff: tuple[float, float] | None = None
    """Shortest and longest delay before a retry, or None to retry without delay."""
    idle_check: int = 0
    """Time after which an idle connection is checked before its next use; 0 means that it is never checked."""
    decode: bool = True
    """Whether answers are decoded to text instead of returned as bytes."""
    max_connections: int | None = None
    """Largest number of simultaneous connections; None means the default of redis-py."""
    pool_wait: float | None = None
    """Longest time to wait for a free connection if all are in use; None means no wait. Only asynchronous clients use
    it."""


COMMANDS = ClientOptions(answer_timeout=5.0, connect_timeout=5.0, idle_check=CHECK_SECONDS)
"""Options for short commands of callers that can wait some seconds, such as the publisher and checks of Redis."""
WORKER_COMMANDS = ClientOptions(answer_timeout=2.0, connect_timeout=2.0)
"""Options for threads of workers. They retry failed commands themselves, and must not be blocked for long."""
DISPLAY_READS = ClientOptions(answer_timeout=0.5, connect_timeout=0.5)
"""Options for reads whose result is only displayed; without an answer, the caller continues."""
LONG_COMMAND = ClientOptions(answer_timeout=10.0, connect_timeout=5.0)
"""Options for a single command that affects all keys, such as FLUSHDB."""
REPLIES = ClientOptions(
    answer_timeout=5.0, connect_timeout=2.0, retries=3, backoff=(0.05, 1.0), idle_check=CHECK_SECONDS, decode=False
)
"""Options for the engine, which reads requests and writes all replies; tokens must not be delayed for long."""
FINAL_REPLIES = ClientOptions(answer_timeout=5.0, connect_timeout=2.0, decode=False)
"""Options for the parent process of the engine, which sends errors to the clients of an engine that has died."""


def request_options(max_connections: int) -> ClientOptions:
    """Return the options for HTTP requests, which send short commands and wait for a connection when all are in use."""
    return ClientOptions(
        answer_timeout=5.0,
        connect_timeout=5.0,
        retries=1,
        idle_check=CHECK_SECONDS,
        max_connections=max_connections,
        pool_wait=5.0,
    )


def rate_limiter_options(max_connections: int) -> ClientOptions:
    """Return the options for the rate limiters, which set their own deadline and can do without an answer of Redis."""
    return ClientOptions(
        answer_timeout=1.0, connect_timeout=1.0, idle_check=CHECK_SECONDS, max_connections=max_connections
    )


def blocking_read_options(block_milliseconds: int) -> ClientOptions:
    """Return the options for stream readers that block for up to `block_milliseconds`.

    Each reader occupies a connection.
    """
    answer_timeout = block_milliseconds / 1000 + 10
    connect_timeout = min(answer_timeout, LONGEST_CONNECT_SECONDS)
    return ClientOptions(
        answer_timeout=answer_timeout, connect_timeout=connect_timeout, idle_check=CHECK_SECONDS, max_connections=5000
    )


def connect(url: str | SecretStr, options: ClientOptions) -> redis.Redis:
    """Return a client that all threads of a process may share."""
    return redis.Redis.from_url(_plain(url), retry=Retry(_backoff(options), options.retries), **_arguments(options))


def connect_async(url: str | SecretStr, options: ClientOptions) -> AsyncRedis:
    """Return a client for one event loop; closing the client closes its connections."""
    arguments = _arguments(options) | {"retry": AsyncRetry(_backoff(options), options.retries)}
    if options.pool_wait is None:
        return AsyncRedis.from_pool(ConnectionPool.from_url(_plain(url), **arguments))
    return AsyncRedis.from_pool(BlockingConnectionPool.from_url(_plain(url), timeout=options.pool_wait, **arguments))


def _arguments(options: ClientOptions) -> dict[str, Any]:
    limit = {} if options.max_connections is None else {"max_connections": options.max_connections}
    return limit | {
        "socket_timeout": options.answer_timeout,
        "socket_connect_timeout": options.connect_timeout,
        "health_check_interval": options.idle_check,
        "decode_responses": options.decode,
    }


def _backoff(options: ClientOptions) -> AbstractBackoff:
    if options.backoff is None:
        return NoBackoff()
    base, cap = options.backoff
    return ExponentialBackoff(cap=cap, base=base)


def _plain(url: str | SecretStr) -> str:
    return url.get_secret_value() if isinstance(url, SecretStr) else url
