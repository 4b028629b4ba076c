"""Completions are not cut off after idle times, after Redis was emptied, or while processes are suspended.

The test runs the real processes with two apis. The timers that detect dead processes are shortened, so that a pause of
two seconds is several times longer than each of them. `python -m bench.idle` does the same with the timers of
production.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from common.redis import keys
from tests.integration.acceptance.stack import TOKEN, Stack, free_port
from tests.integration.acceptance.tiny_model import MODEL, save_tiny_model
from tidal_client import read_events

READY_SECONDS = 90.0
IDLE_SECONDS = 2.0
SHORT = {
    "TIDAL_PRESENCE_SECONDS": "0.2",
    "TIDAL_GENERATE_REDIS_SECONDS": "1",
    "TIDAL_STREAM_LINGER_SECONDS": "0.5",
    "TIDAL_HEARTBEAT_SECONDS": "0.3",
    "TIDAL_GENERATOR_THREADS": "1",
    "TIDAL_GENERATOR_DEVICE": "cpu",
}
LONG = 1200
"""Number of tokens of a completion whose generation takes some seconds."""


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Run two apis and a generator. The model is tiny and hardly ever emits end-of-text."""
    save_tiny_model(tmp_path / "experiments")
    with Stack(database_url, redis_url, tmp_path) as running:
        running.environment |= SHORT
        running.start("generator", "generator")
        running.start_control_plane()
        yield running


def complete(http: httpx.Client, tokens: int = 40) -> tuple[int, str]:
    """Return (number of tokens, finish reason) of a completion. It should end only at its token limit."""
    body = {"model": MODEL, "prompt": "Once", "max_tokens": tokens, "logit_bias": {"50256": -100}}
    reply = http.post("/v1/completions", json=body, timeout=READY_SECONDS)
    assert reply.status_code == 200, reply.text
    return reply.json()["usage"]["completion_tokens"], reply.json()["choices"][0]["finish_reason"]


def stream(http: httpx.Client, tokens: int = 40) -> Iterator[dict[str, Any]]:
    """Yield the data of each event of a streamed generation. Fail after an error event."""
    body = {"checkpoint": MODEL, "prompt": "Once", "maxTokens": tokens, "stream": True}
    with http.stream("POST", "/api/generate", json=body, timeout=READY_SECONDS) as reply:
        for event in read_events(reply):
            assert event.name in ("token", "done"), event
            yield event.data


def streamed(http: httpx.Client, tokens: int = 40) -> tuple[int, str]:
    *seen, reply = stream(http, tokens)
    assert [token["index"] for token in seen] == list(range(tokens))
    return reply["tokensGenerated"], reply["finishReason"]


def test_texts_are_complete_whatever_happened_in_the_pause(stack: Stack, redis_client: redis.Redis) -> None:
    """The replies of two apis are complete, even if one of them is suspended during a generation."""
    second = httpx.Client(
        base_url=f"http://127.0.0.1:{_second_api(stack)}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    apis = [stack.http, second]
    whole = [(40, "length")] * 2
    stack.wait_for("the first text", lambda: complete(stack.http) == whole[0], READY_SECONDS)
    stack.wait_for("the second api", lambda: _answers(second), READY_SECONDS)

    def nothing() -> None: ...

    def close_connections() -> None:
        redis_client.client_kill_filter(_type="normal", skipme=True)
        redis_client.client_kill_filter(_type="pubsub")

    for happens in (nothing, nothing, redis_client.flushall, close_connections):
        time.sleep(IDLE_SECONDS / 2)
        happens()
        time.sleep(IDLE_SECONDS / 2)
        assert [complete(http) for http in apis] == whole, happens
        assert [streamed(http) for http in apis] == whole, happens

    # During the generation, the api is suspended for longer than all timers, and the keys in Redis are deleted.
    written = stream(stack.http, LONG)
    assert next(written)["index"] == 0
    api = stack.processes["api"].pid
    os.kill(api, signal.SIGSTOP)
    time.sleep(IDLE_SECONDS)
    os.kill(api, signal.SIGCONT)
    for key in redis_client.scan_iter("tidal:generate:*"):
        redis_client.delete(key)
    *rest, reply = written
    assert [token["index"] for token in rest] == list(range(1, LONG))
    assert (reply["tokensGenerated"], reply["finishReason"]) == (LONG, "length")
    second.close()


def test_an_idle_stream_and_the_board_of_workers_go_on(stack: Stack, redis_client: redis.Redis) -> None:
    """A job's events and the heartbeat still arrive after the live stream was idle and Redis was emptied."""
    heard: list[str] = []

    def listen() -> None:
        # When the test ends, it closes the client, which this thread may still be using.
        with suppress(httpx.HTTPError), stack.http.stream("GET", "/api/jobs/stream", timeout=READY_SECONDS) as reply:
            for event in read_events(reply):
                heard.append(json.dumps(event.data))

    threading.Thread(target=listen, daemon=True).start()
    stack.wait_for("the engine", lambda: bool(redis_client.pubsub_channels(keys.presence("engine-*"))), READY_SECONDS)
    time.sleep(IDLE_SECONDS)
    redis_client.flushall()
    time.sleep(IDLE_SECONDS)
    job = stack.submit(config={"data": {"source": "builtin:stories"}})["id"]
    stack.wait_for("the event", lambda: any(job in text for text in heard), 15)
    stack.wait_for("the generator's heartbeat", lambda: bool(redis_client.keys(keys.heartbeat("*"))), 15)
    assert sum(job in text for text in heard) >= 1
    queues = {redis_client.hget(key, "queue") for key in redis_client.keys(keys.heartbeat("*"))}
    assert queues == {"generate"}, "the only worker of this stack sends heartbeats again"


def _second_api(stack: Stack) -> int:
    port = free_port()
    stack.start("second-api", "api", TIDAL_PORT=str(port))
    return port


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
