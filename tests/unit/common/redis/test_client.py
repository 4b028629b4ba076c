"""A Redis client has the timeouts, retries and connection limits that its caller needs."""

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
    blocking_reads,
    connect,
    connect_async,
    deciding,
    requests,
)

URL = SecretStr("redis://:secret@127.0.0.1:1/0")


def options(need: ClientOptions) -> dict[str, Any]:
    """Return the connection options of a client for `need`."""
    return dict(connect(URL, need).connection_pool.connection_kwargs)


@pytest.mark.parametrize(
    ("need", "timeout", "connect_timeout", "health_check", "text"),
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
    need: ClientOptions, timeout: float, connect_timeout: float, health_check: int, text: bool
) -> None:
    values = options(need)
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (timeout, connect_timeout)
    assert (values["health_check_interval"], values["decode_responses"]) == (health_check, text)
    assert values["password"] == "secret"


@pytest.mark.parametrize("need", [COMMANDS, WORKER_COMMANDS, DISPLAY_READS, FINAL_REPLIES, LONG_COMMAND])
def test_these_clients_raise_an_error_without_a_retry(need: ClientOptions) -> None:
    assert options(need)["retry"].get_retries() == 0


def test_the_engine_retries_within_a_second() -> None:
    retry = options(REPLIES)["retry"]
    assert retry.get_retries() == 3
    assert retry._backoff == ExponentialBackoff(cap=1.0, base=0.05)


@pytest.mark.parametrize(
    ("need", "timeout", "connect_timeout", "retries", "most_connections"),
    [
        (requests(50), 5, 5, 1, 50),
        (blocking_reads(20_000), 30, 5, 0, 5000),
        (deciding(20), 1, 1, 0, 20),
    ],
)
def test_the_clients_of_the_api_have_limits(
    need: ClientOptions, timeout: float, connect_timeout: float, retries: int, most_connections: int
) -> None:
    client = connect_async(URL, need)
    values = client.connection_pool.connection_kwargs
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (timeout, connect_timeout)
    assert values["retry"].get_retries() == retries
    assert values["retry"]._backoff == NoBackoff()
    assert (values["health_check_interval"], values["decode_responses"]) == (25, True)
    assert client.connection_pool.max_connections == most_connections


def test_requests_wait_for_a_connection_and_fail_after_five_seconds() -> None:
    pool = connect_async(URL, requests(2)).connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    assert pool.timeout == 5
    assert not isinstance(connect_async(URL, deciding(2)).connection_pool, BlockingConnectionPool)
