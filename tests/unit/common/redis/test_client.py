"""Each kind of Redis client has the timeouts, retries and connection limits that its caller needs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff

from common.redis.client import (
    COMMANDS,
    DISPLAY_READS,
    FINAL_REPLIES,
    LONG_COMMAND,
    REPLIES,
    WORKER_COMMANDS,
    ClientOptions,
    blocking_read_options,
    connect,
    connect_async,
    rate_limiter_options,
    request_options,
)

URL = SecretStr("redis://:secret@127.0.0.1:1/0")


def connection_arguments(options: ClientOptions) -> dict[str, Any]:
    """Return the keyword arguments with which a client for `options` opens its connections."""
    return dict(connect(URL, options).connection_pool.connection_kwargs)


@pytest.mark.parametrize(
    ("options", "timeout", "connect_timeout", "health_check", "text"),
    [
        (COMMANDS, 5, 5, 25, True),
        (WORKER_COMMANDS, 2, 2, 0, True),
        (DISPLAY_READS, 0.5, 0.5, 0, True),
        (LONG_COMMAND, 10, 5, 0, True),
        (REPLIES, 5, 2, 25, False),
        (FINAL_REPLIES, 5, 2, 0, False),
    ],
)
def test_a_client_has_the_timeouts_that_its_caller_needs(
    options: ClientOptions, timeout: float, connect_timeout: float, health_check: int, text: bool
) -> None:
    values = connection_arguments(options)
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (timeout, connect_timeout)
    assert (values["health_check_interval"], values["decode_responses"]) == (health_check, text)
    assert values["password"] == "secret"


@pytest.mark.parametrize("options", [COMMANDS, WORKER_COMMANDS, DISPLAY_READS, FINAL_REPLIES, LONG_COMMAND])
def test_these_clients_raise_an_error_without_a_retry(options: ClientOptions) -> None:
    assert connection_arguments(options)["retry"].get_retries() == 0


def test_the_engine_retries_within_a_second() -> None:
    retry = connection_arguments(REPLIES)["retry"]
    assert retry.get_retries() == 3
    assert retry._backoff == ExponentialBackoff(cap=1.0, base=0.05)


@pytest.mark.parametrize(
    ("options", "timeout", "connect_timeout", "retries", "most_connections"),
    [
        (request_options(50), 5, 5, 1, 50),
        (blocking_read_options(20_000), 30, 5, 0, 5000),
        (rate_limiter_options(20), 1, 1, 0, 20),
    ],
)
def test_the_clients_of_the_api_have_limits(
    options: ClientOptions, timeout: float, connect_timeout: float, retries: int, most_connections: int
) -> None:
    client = connect_async(URL, options)
    values = client.connection_pool.connection_kwargs
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (timeout, connect_timeout)
    assert values["retry"].get_retries() == retries
    assert values["retry"]._backoff == NoBackoff()
    assert (values["health_check_interval"], values["decode_responses"]) == (25, True)
    assert client.connection_pool.max_connections == most_connections


def test_requests_wait_for_a_connection_and_fail_after_five_seconds() -> None:
    pool = connect_async(URL, request_options(2)).connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    assert pool.timeout == 5
    assert not isinstance(connect_async(URL, rate_limiter_options(2)).connection_pool, BlockingConnectionPool)
