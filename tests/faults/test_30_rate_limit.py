"""Fault 30 of 31: the rate limit is exact under 200 concurrent requests; without Redis, all are accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from services.local.servers import ValkeyServer
from tests.faults.fault_workers import FaultWorkers
from tests.faults.own_servers import kill_9, metric, running_api, valkey_of_its_own

REQUESTS = 200
CAPACITY = 5
LET_IN = "tidal_rate_limit_unavailable_total"
REFUSED = "tidal_rate_limited_total"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """Run a Valkey for this test only."""
    with valkey_of_its_own(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis_url(server: ValkeyServer) -> str:
    """Return the URL of `server`. This fixture overrides the common one, so that all other fixtures use `server`."""
    return server.url


def burst(client: httpx.Client, caller: str, answered: Callable[[int], None] = lambda _: None) -> tuple[int, int, int]:
    """Send all requests of one client at once.

    Return the numbers of requests that were accepted, refused, and accepted because Redis did not answer in time. The
    requests name a checkpoint that does not exist, so an accepted request fails with `invalid_input`.
    """

    async def one(http: httpx.AsyncClient) -> httpx.Response:
        body, headers = {"checkpoint": "none/final"}, {"X-Forwarded-For": caller}
        reply = await http.post("/api/generate", json=body, headers=headers)
        replies.append(reply)
        answered(len(replies))
        return reply

    async def everyone() -> None:
        limits = httpx.Limits(max_connections=REQUESTS)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60, limits=limits) as http:
            await asyncio.gather(*(one(http) for _ in range(REQUESTS)))

    replies: list[httpx.Response] = []
    refused_before, open_before = metric(client, REFUSED), metric(client, LET_IN)
    asyncio.run(everyone())
    codes = [reply.json()["code"] for reply in replies]
    assert set(codes) <= {"invalid_input", "rate_limited"}, codes
    refused = [reply for reply in replies if reply.status_code == 429]
    assert all("Retry-After" in reply.headers for reply in refused)
    assert metric(client, REFUSED) - refused_before == len(refused)
    return REQUESTS - len(refused), len(refused), int(metric(client, LET_IN) - open_before)


def test_fault_30_the_limit_is_exact_until_redis_dies_and_requests_are_counted_afterwards(
    workers: FaultWorkers, server: ValkeyServer, rng: random.Random
) -> None:
    # Only one token per hour is added, so the number of accepted requests is the capacity of the bucket.
    with running_api(
        workers,
        TIDAL_TRUSTED_PROXIES="127.0.0.1",
        TIDAL_RATE_LIMIT_CAPACITY=str(CAPACITY),
        TIDAL_RATE_LIMIT_REFILL_SECONDS="3600",
    ) as client:
        # On a busy machine, Redis may take longer than 50 ms to answer. The request is then accepted, and counted in
        # `unjudged`.
        let_in, refused, unjudged = burst(client, "192.0.2.1")
        assert let_in - unjudged == CAPACITY and refused > 0

        dies_at = rng.randrange(CAPACITY, REQUESTS // 2)
        let_in, refused, unjudged = burst(
            client, "192.0.2.2", lambda count: kill_9(server) if count == dies_at else None
        )
        assert 0 <= let_in - unjudged <= CAPACITY

        assert burst(client, "192.0.2.3") == (REQUESTS, 0, REQUESTS)

        server.start()
        workers.wait_for(lambda: client.get("/readyz").status_code == 200, "Redis back", 30)
        let_in, refused, unjudged = burst(client, "192.0.2.4")
        assert let_in - unjudged == CAPACITY and refused > 0
