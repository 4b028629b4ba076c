"""Each caller gets the time-outs, retries and limits that it needs; the numbers here were those of the callers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool
from redis.backoff import ExponentialBackoff, NoBackoff

from common.redis.client import (
    COMMANDS,
    FEED,
    GLANCE,
    LAST_REPLIES,
    LONG_COMMAND,
    REPLIES,
    Need,
    blocking_reads,
    connect,
    connect_async,
    deciding,
    requests,
)

URL = SecretStr("redis://:secret@127.0.0.1:1/0")


def made(need: Need, *, asynchronous: bool = False) -> dict[str, Any]:
    client: Any = (connect_async if asynchronous else connect)(URL, need)
    values: dict[str, Any] = client.connection_pool.connection_kwargs
    return values


@pytest.mark.parametrize(
    ("need", "answer", "connecting", "check", "text"),
    [
        (COMMANDS, 5, 5, 25, True),
        (FEED, 2, 2, 0, True),
        (GLANCE, 0.5, 0.5, 0, True),
        (LONG_COMMAND, 10, 5, 0, True),
        (REPLIES, 5, 2, 25, False),
        (LAST_REPLIES, 5, 2, 0, False),
    ],
)
def test_a_client_waits_as_long_as_its_caller_needs(
    need: Need, answer: float, connecting: float, check: int, text: bool
) -> None:
    values = made(need)
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (answer, connecting)
    assert (values["health_check_interval"], values["decode_responses"]) == (check, text)
    assert values["password"] == "secret"


@pytest.mark.parametrize("need", [COMMANDS, FEED, GLANCE, LAST_REPLIES, LONG_COMMAND])
def test_other_callers_get_their_error_at_once(need: Need) -> None:
    assert made(need)["retry"].get_retries() == 0


def test_the_engine_tries_again_within_a_second() -> None:
    retry = made(REPLIES)["retry"]
    assert retry.get_retries() == 3
    assert retry._backoff == ExponentialBackoff(cap=1.0, base=0.05)


@pytest.mark.parametrize(
    ("need", "answer", "connecting", "retries", "most"),
    [
        (requests(50), 5, 5, 1, 50),
        (blocking_reads(20_000), 30, 5, 0, 5000),
        (deciding(20), 1, 1, 0, 20),
    ],
)
def test_the_clients_of_the_api_have_limits(
    need: Need, answer: float, connecting: float, retries: int, most: int
) -> None:
    client = connect_async(URL, need)
    values = client.connection_pool.connection_kwargs
    assert (values["socket_timeout"], values["socket_connect_timeout"]) == (answer, connecting)
    assert values["retry"].get_retries() == retries
    assert values["retry"]._backoff == NoBackoff()
    assert (values["health_check_interval"], values["decode_responses"]) == (25, True)
    assert client.connection_pool.max_connections == most


def test_requests_wait_for_a_connection_and_fail_after_five_seconds() -> None:
    pool = connect_async(URL, requests(2)).connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    assert pool.timeout == 5
    assert not isinstance(connect_async(URL, deciding(2)).connection_pool, BlockingConnectionPool)
