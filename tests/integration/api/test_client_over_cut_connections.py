"""The clients against the real api over connections that are cut: streams, submissions, downloads."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
import redis

from tests.faults.proxy import TcpProxy
from tests.integration.api.conftest import TOKEN, Api
from tests.integration.api.streams import key as key
from tests.integration.api.streams import path as path
from tidal_client import AsyncClient, Client

EVENTS = 10_000
CUTS = 20


@pytest.fixture
def proxy(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    for package in ("asynchronous", "synchronous"):
        monkeypatch.setattr(f"tidal_client.{package}.streams.FIRST_DELAY", 0.01)
    with TcpProxy.of_url(api.url) as proxy:
        yield proxy


def write_events(client: redis.Redis, key: str) -> list[str]:
    """Add EVENTS entries of different lengths to a stream and return their ids."""
    pipeline = client.pipeline(transaction=False)
    for number in range(EVENTS):
        pipeline.xadd(key, {"event": "metrics", "data": f'{{"n": {number}, "text": "{"é" * (number % 90)}"}}'})
    return [str(entry_id) for entry_id in pipeline.execute()]


class Cutter:
    """Cuts all connections of a proxy after CUTS randomly chosen events."""

    def __init__(self, proxy: TcpProxy, seed: int) -> None:
        self._proxy = proxy
        self._at = set(random.Random(seed).sample(range(EVENTS), CUTS))
        self.cuts = 0

    def seen(self, number: int) -> None:
        if number in self._at:
            self._proxy.cut()
            self._proxy.heal()
            self.cuts += 1


def test_ten_thousand_events_over_twenty_cut_connections_arrive_once_each(
    proxy: TcpProxy, key: str, redis_client: redis.Redis
) -> None:
    experiment = key.rsplit(":", 1)[-1]
    found: list[tuple[str | None, int]] = []
    cutter = Cutter(proxy, seed=1)
    with Client(proxy.url) as client:
        events = client.follow_experiment(experiment)
        assert next(events).name == "snapshot"
        written = write_events(redis_client, key)
        for event in events:
            if event.name == "metrics":
                found.append((event.id, event.data["n"]))
                cutter.seen(event.data["n"])
            if event.id == written[-1]:
                break
        events.close()
    assert found == list(zip(written, range(EVENTS), strict=True))
    assert cutter.cuts == CUTS


def test_the_asynchronous_client_loses_and_repeats_no_event_of_several_streams(
    proxy: TcpProxy, api: Api, key: str, redis_client: redis.Redis
) -> None:
    topic = f"experiments/{key.rsplit(':', 1)[-1]}"
    found: list[tuple[str | None, int]] = []
    cutter = Cutter(proxy, seed=2)
    jobs: list[str] = []

    async def follow() -> list[str]:
        async with (
            AsyncClient(proxy.url) as client,
            aclosing(client.follow_topics([topic, "jobs", "jobs/x"])) as events,
        ):
            first = [await anext(events) for _ in range(3)]
            assert {(event.topic, event.name) for event in first} == {
                (topic, "snapshot"),
                ("jobs", "snapshot"),
                ("jobs/x", "error"),
            }
            written = await asyncio.to_thread(write_events, redis_client, key)
            created = await asyncio.to_thread(api.submit)
            async for event in events:
                assert event.name not in ("snapshot", "reset", "error"), event
                if event.name == "metrics":
                    assert event.topic == topic
                    found.append((event.id, event.data["n"]))
                    cutter.seen(event.data["n"])
                if event.topic == "jobs" and event.data.get("id") == created["id"]:
                    jobs.append(event.data["status"])
                if len(found) == EVENTS and jobs:
                    return written
        raise AssertionError("the stream ended")

    written = asyncio.run(follow())
    assert found == list(zip(written, range(EVENTS), strict=True))
    assert (cutter.cuts, jobs) == (CUTS, ["pending"])


def test_a_submission_whose_reply_is_lost_is_repeated_and_makes_one_job(api: Api) -> None:
    keys: list[str] = []

    def lose_the_first_reply(response: httpx.Response) -> None:
        keys.append(response.request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ReadError("the connection was reset before the reply arrived")

    with Client(api.url, TOKEN) as client:
        client._http.event_hooks = {"response": [lose_the_first_reply]}
        job = client.submit_job("lm-training", config={"data": {"source": "builtin:stories"}})
    assert len(keys) == 2 and keys[0] == keys[1]
    assert [found["id"] for found in api.http.get("/api/jobs").json()["jobs"]] == [job.id]


def test_a_download_continues_after_each_cut(proxy: TcpProxy, api: Api, tmp_path: Path) -> None:
    experiment = api.submit()["experimentId"]
    content = random.Random(3).randbytes(3_000_000)
    (api.experiment_folder(experiment) / "model.safetensors").write_bytes(content)
    cut_at = iter([300_000, 1_000_000, 2_500_000])
    following = next(cut_at)
    requests: list[str | None] = []

    def cut(received: int) -> None:
        nonlocal following
        if received >= following:
            proxy.cut()
            proxy.heal()
            following = next(cut_at, 1 << 60)

    with Client(proxy.url) as client:
        client._http.event_hooks = {"request": [lambda request: requests.append(request.headers.get("Range"))]}
        target = client.download_checkpoint(experiment, "model.safetensors", tmp_path / "copy", on_progress=cut)
    assert target.read_bytes() == content
    assert requests[0] is None and len(requests) >= 4
    assert all(each is not None and each.startswith("bytes=") for each in requests[1:])
    assert [each.name for each in tmp_path.iterdir() if "copy" in each.name] == ["copy"]
