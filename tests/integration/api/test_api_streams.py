"""Streams lose and repeat no event; a client whose position is no longer stored gets the event `reset`."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import ExitStack, suppress
from itertools import takewhile

import httpx
import pytest
import redis

from common.redis.keys import EPOCH, JOBS_STREAM, experiment_stream
from services.api.streaming import hub as stream_hub
from services.api.streaming import topic as stream_topic
from tests.integration.api.conftest import Api, RunApi, events_of
from tests.integration.api.streams import add, shows
from tests.integration.api.streams import key as key
from tests.integration.api.streams import path as path


def numbers(client: httpx.Client, path: str, since: str | None, until: int) -> list[int]:
    """Return the numbers of the stream's events up to and including `until`."""
    found: list[int] = []
    with events_of(client, path, since) as events:
        for event in events:
            if event.name == "metrics":
                found.append(event.data["n"])
                if found[-1] == until:
                    return found
    raise AssertionError("the stream ended")


def test_a_stream_has_the_headers_that_prevent_buffering_by_proxies(api: Api) -> None:
    with api.http.stream("GET", "/api/jobs/stream") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        assert "no-transform" in reply.headers["cache-control"]


def test_a_new_client_gets_a_snapshot_and_then_the_events(api: Api) -> None:
    job = api.submit(name="watched")
    with events_of(api.http, "/api/jobs/stream") as events:
        [snapshot] = events.take(1)
        assert snapshot.name == "snapshot" and snapshot.id is not None
        assert [found["id"] for found in snapshot.data["jobs"]] == [job["id"]]
        api.admin.post(f"/api/jobs/{job['id']}/cancel")
        updates = takewhile(lambda event: event.data["status"] != "cancelled", events)
        assert all(event.name == "job-update" and event.id for event in updates)


def test_the_snapshot_of_a_job_is_the_job(api: Api) -> None:
    job = api.submit()
    with events_of(api.http, f"/api/jobs/{job['id']}/stream") as events:
        assert events.take(1)[0].data == {"job": api.http.get(f"/api/jobs/{job['id']}").json()}


def test_every_event_has_the_id_redis_gave_it(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    with events_of(api.http, path) as events:
        events.take(1)
        ids = [add(redis_client, key, n) for n in range(3)]
        assert [event.id for event in events.take(3)] == ids


@pytest.mark.parametrize("ring", [1, 7, 2000])
def test_a_client_that_drops_every_few_events_sees_each_exactly_once(
    api: Api, path: str, key: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    monkeypatch.setattr(stream_topic, "RING", ring)
    monkeypatch.setattr(stream_hub, "PAGE", 5)
    total, each = 200, 13
    seen: list[int] = []
    with events_of(api.http, path) as events:
        cursor = events.take(1)[0].id
    writer = threading.Thread(target=lambda: [add(redis_client, key, n) for n in range(total)])
    writer.start()
    while len(seen) < total:
        with events_of(api.http, path, cursor) as events:
            for event in events:
                if event.name == "metrics":
                    seen.append(event.data["n"])
                cursor = event.id or cursor
                if len(seen) % each == 0 or len(seen) == total:
                    break
    writer.join()
    assert seen == list(range(total))


def test_since_zero_replays_all_stored_entries(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    for n in range(5):
        add(redis_client, key, n)
    assert numbers(api.http, f"{path}?since=0", None, 4) == [0, 1, 2, 3, 4]


def test_a_replay_from_the_beginning_goes_through_entries_older_than_the_epoch(
    api: Api, path: str, key: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_hub, "PAGE", 2)
    for n in range(7):
        add(redis_client, key, n)
    redis_client.delete(EPOCH)
    assert numbers(api.http, f"{path}?since=0", None, 6) == list(range(7))


def test_the_header_takes_precedence_over_the_query(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    ids = [add(redis_client, key, n) for n in range(5)]
    assert numbers(api.http, f"{path}?since=0", ids[2], 4) == [3, 4]


def test_metrics_contain_the_position_from_which_a_stream_is_complete(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    add(redis_client, key, 1)
    cursor = api.http.get(path.replace("/stream", "/metrics")).json()["streamCursor"]
    add(redis_client, key, 2)
    assert numbers(api.http, path, cursor, 2) == [2]


def assert_reset_then_snapshot(api: Api, path: str, cursor: str) -> str:
    with events_of(api.http, path, cursor) as events:
        reset, snapshot = events.take(2)
    assert (reset.name, snapshot.name) == ("reset", "snapshot")
    assert reset.id is None and snapshot.id is not None and reset.data["reason"]
    return snapshot.id


def test_a_trimmed_cursor_is_reset(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    ids = [add(redis_client, key, n) for n in range(10)]
    redis_client.xtrim(key, maxlen=4, approximate=False)
    position = assert_reset_then_snapshot(api, path, ids[2])
    assert position == ids[-1]
    add(redis_client, key, 10)
    assert numbers(api.http, path, position, 10) == [10]


def test_a_trimmed_cursor_without_lost_entries_continues(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    ids = [add(redis_client, key, n) for n in range(10)]
    redis_client.xtrim(key, maxlen=4, approximate=False)
    assert numbers(api.http, path, ids[6], 9) == [7, 8, 9]


def test_a_cursor_beyond_the_end_is_reset(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    last = add(redis_client, key, 1)
    beyond = f"{int(last.split('-')[0]) + 1_000_000}-0"
    assert assert_reset_then_snapshot(api, path, beyond) == last


def test_a_cursor_from_before_redis_was_emptied_is_reset(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    old = add(redis_client, key, 1)
    redis_client.flushall()
    add(redis_client, key, 2)
    assert_reset_then_snapshot(api, path, old)


def test_a_connected_client_gets_a_reset_when_redis_was_emptied(
    api: Api, path: str, key: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_hub, "EPOCH_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(stream_hub, "BLOCK_MILLISECONDS", 50)
    with events_of(api.http, path) as events:
        events.take(1)
        redis_client.flushall()
        names = [event.name for event in takewhile(lambda event: event.name != "snapshot", events)]
        assert names[-1] == "reset"
        add(redis_client, key, 7)
        assert next(event.data["n"] for event in events if event.name == "metrics") == 7
    assert redis_client.get(EPOCH)


def test_many_clients_share_one_reader(api: Api, path: str, key: str, redis_client: redis.Redis) -> None:
    count = 20
    ready = threading.Barrier(count + 1, timeout=20)
    results: list[list[int]] = []

    def follow() -> None:
        with httpx.Client(base_url=api.url, timeout=20) as client, events_of(client, path) as events:
            events.take(1)
            ready.wait()
            found = (event.data["n"] for event in events if event.name == "metrics")
            results.append([next(found) for _ in range(50)])

    threads = [threading.Thread(target=follow) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    metrics = api.http.get("/metrics").text
    assert "tidal_sse_readers 1.0" in metrics and f"tidal_sse_clients {count}.0" in metrics
    for n in range(50):
        add(redis_client, key, n)
    for thread in threads:
        thread.join(20)
    assert results == [list(range(50))] * count


def test_the_reader_ends_after_its_last_client_and_begins_again(
    serve: RunApi, path: str, key: str, redis_client: redis.Redis
) -> None:
    with serve(stream_linger_seconds=0.05) as api:
        with events_of(api.http, path) as events:
            events.take(1)
        assert shows(api, "tidal_sse_clients 0.0")
        assert shows(api, "tidal_sse_readers 0.0")
        add(redis_client, key, 7)
        assert numbers(api.http, path, "0", 7) == [7]


def test_clients_that_reconnect_at_once_find_the_reader_still_running(
    api: Api, path: str, key: str, redis_client: redis.Redis
) -> None:
    add(redis_client, key, 1)
    with events_of(api.http, f"{path}?since=0") as events:
        cursor = next(event.id for event in events if event.name == "metrics")
    assert shows(api, "tidal_sse_clients 0.0")
    assert "tidal_sse_readers 1.0" in api.http.get("/metrics").text
    add(redis_client, key, 2)
    assert numbers(api.http, path, cursor, 2) == [2]


def test_a_comment_keeps_a_quiet_stream_open(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.streaming.clients.KEEP_ALIVE_SECONDS", 0.05)
    with api.http.stream("GET", "/api/jobs/stream") as reply:
        assert next(line for line in reply.iter_lines() if line.startswith(":")) == ": keep-alive"


def test_stopping_the_server_ends_open_streams_cleanly(serve: RunApi) -> None:
    opened = threading.Event()
    ended: list[str] = []

    def follow(url: str) -> None:
        with httpx.Client(base_url=url, timeout=20) as client, events_of(client, "/api/jobs/stream") as events:
            events.take(1)
            opened.set()
            ended.extend(event.name for event in events)
        ended.append("end")

    with serve() as api:
        thread = threading.Thread(target=follow, args=(api.url,))
        thread.start()
        assert opened.wait(20)
    thread.join(20)
    assert ended == ["end"]


@pytest.mark.parametrize("open_at_the_end", [False, True])
def test_a_reader_with_a_lost_cancellation_does_not_prevent_a_shutdown(
    serve: RunApi, monkeypatch: pytest.MonkeyPatch, open_at_the_end: bool
) -> None:
    async def deaf(*_: object, **__: object) -> list[object]:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)
        return []

    monkeypatch.setattr(stream_hub, "read_after", deaf)
    with ExitStack() as stack, serve() as api:  # `serve` asserts at its end that the server stops
        events = stack.enter_context(events_of(stack.enter_context(httpx.Client(base_url=api.url)), "/api/jobs/stream"))
        events.take(1)
        if not open_at_the_end:
            stack.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{api.url}/healthz")


def test_a_client_that_does_not_read_is_dropped_without_affecting_others(
    serve: RunApi, redis_client: redis.Redis
) -> None:
    with serve(stream_client_seconds=0.2) as api:
        experiment = api.submit()["experimentId"]
        path, key = f"/api/experiments/{experiment}/stream", experiment_stream(experiment)
        host, port = api.url.removeprefix("http://").split(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            slow.recv(1000)
            blob = json.dumps({"n": 0, "text": "x" * 100_000})
            for _ in range(100):
                redis_client.xadd(key, {"event": "blob", "data": blob})
            assert shows(api, "tidal_sse_clients_dropped_total 1.0")
        last = add(redis_client, key, 5)
        assert numbers(api.http, f"{path}?since={int(last.split('-')[0]) - 1}", None, 5) == [5]


def test_an_event_of_a_job_is_on_the_stream_of_all_jobs(api: Api, redis_client: redis.Redis) -> None:
    job = api.submit()
    with events_of(api.http, "/api/jobs/stream?since=0") as events:
        assert events.take(1)[0].data["id"] == job["id"]
    assert redis_client.xlen(JOBS_STREAM) == 1
