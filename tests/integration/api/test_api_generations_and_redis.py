"""While Redis is flushed, disconnected or silent, a generation either completes or fails within seconds.

The client never takes a partial generation for a complete one. The engine is the stand-in of `engine_stand_in`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis
from kombu.exceptions import OperationalError as KombuOperationalError

from common.redis import keys
from common.redis.generation_events import beacon
from common.redis.generation_request import GenerationRequest
from tests.faults.proxy import TcpProxy
from tests.integration.api.conftest import Api, Events, RunApi
from tests.integration.api.engine_stand_in import Engine, make_checkpoint, reply_of
from tests.integration.api.engine_stand_in import engine as engine

ANSWER_SECONDS = 5.0
"""Seconds after the loss of Redis within which a generation must complete or fail with 503."""


def ask(api: Api, *, stream: bool) -> httpx.Response:
    body = {"checkpoint": make_checkpoint(api), "prompt": "once", "stream": stream}
    return api.admin.post("/api/generate", json=body)


def outcome(reply: httpx.Response) -> str:
    """Return "done" if the reply is complete, otherwise the code of its error."""
    if reply.status_code != 200:
        return str(reply.json()["code"])
    if not reply.headers["content-type"].startswith("text/event-stream"):
        return "done"
    last = list(Events(reply))[-1]
    return last.name if last.name == "done" else str(last.data["code"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["cut", "silence"])
def test_a_generation_during_which_redis_is_lost_ends_with_503_in_time(
    serve: RunApi, engine: Engine, redis_url: str, stream: bool, way: str
) -> None:
    begun = threading.Event()

    def begin(engine: Engine, request: GenerationRequest) -> None:
        engine.event(request.id, "token", {"index": 0, "text": "a"})
        begun.set()

    engine.answer = begin
    with (
        TcpProxy.of_url(redis_url) as proxy,
        serve(redis_url=proxy.url, generate_redis_seconds=2.0) as api,
        ThreadPoolExecutor(1) as pool,
    ):
        future = pool.submit(ask, api, stream=stream)
        assert begun.wait(10)
        lost_at = time.monotonic()
        getattr(proxy, way)()
        assert outcome(future.result(20)) == "redis_unavailable"
        assert time.monotonic() - lost_at < ANSWER_SECONDS
        # A request during the outage also fails in time, and a request after it succeeds.
        asked_at = time.monotonic()
        assert outcome(ask(api, stream=stream)) == "redis_unavailable"
        assert time.monotonic() - asked_at < ANSWER_SECONDS
        [request_id] = [request.id for request in engine.requests]
        proxy.heal()
        engine.answer = lambda engine, request: engine.event(request.id, "done", reply_of(request))
        assert outcome(ask(api, stream=stream)) == "done"
        until = time.monotonic() + 10
        while not engine.redis.exists(keys.generate_cancelled(request_id)):
            assert time.monotonic() < until, "the api cancels the request once Redis is back"
            time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [KombuOperationalError("reset by peer"), redis.ConnectionError("reset by peer")])
def test_a_connection_lost_while_the_request_is_sent_has_the_same_code(
    api: Api, monkeypatch: pytest.MonkeyPatch, stream: bool, error: Exception
) -> None:
    """The error code is the same whether Celery or the Redis client raises the exception."""

    def lose(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(api.context.celery, "send_task", lose)
    assert outcome(ask(api, stream=stream)) == "redis_unavailable"


def test_a_short_interruption_loses_no_event(serve: RunApi, engine: Engine, redis_url: str) -> None:
    """The connections to Redis are reset during a generation; the client still gets every event once."""
    cut = threading.Event()

    def write(engine: Engine, request: GenerationRequest) -> None:
        engine.name = "alive"
        engine.event(request.id, "token", {"index": 0, "text": "a"}, number=1)
        assert cut.wait(10)
        engine.event(request.id, "token", {"index": 1, "text": "b"}, number=2)
        # The engine writes the event twice, as after a write that got no reply.
        engine.event(request.id, "token", {"index": 1, "text": "b"}, number=2)
        engine.event(request.id, "done", reply_of(request), number=3)

    engine.answer = write
    with TcpProxy.of_url(redis_url) as proxy, serve(redis_url=proxy.url) as api:
        body = {"checkpoint": make_checkpoint(api), "prompt": "once", "stream": True}
        with api.admin.stream("POST", "/api/generate", json=body) as reply:
            events = iter(Events(reply))
            assert next(events).data["text"] == "a"
            proxy.cut()
            cut.set()
            time.sleep(0.5)
            proxy.heal()
            assert [(event.name, event.data.get("text")) for event in events] == [("token", "b"), ("done", "ONCE")]


Answer = Callable[[Engine, GenerationRequest], None]


def _lose_an_entry(engine: Engine, request: GenerationRequest) -> None:
    engine.event(request.id, "token", {"index": 0, "text": "a"}, number=1)
    engine.event(request.id, "done", reply_of(request), number=3)


def _lose_the_first_entry(engine: Engine, request: GenerationRequest) -> None:
    engine.event(request.id, "done", reply_of(request), number=2)


def _lose_the_last_entry(engine: Engine, request: GenerationRequest) -> None:
    engine.event(request.id, "token", {"index": 0, "text": "a"}, number=1)
    engine.redis.xadd(keys.generate_stream(request.id), beacon(engine.name, [], 2))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "written"), [(_lose_an_entry, 3), (_lose_the_first_entry, 2), (_lose_the_last_entry, 2)]
)
def test_a_generation_whose_events_were_lost_ends_with_an_error(
    api: Api, engine: Engine, answer: Answer, written: int, stream: bool
) -> None:
    """`written` is the number of entries that the engine wrote, including the lost ones."""
    engine.name = "alive"
    engine.answer = answer
    asked_at = time.monotonic()
    assert outcome(ask(api, stream=stream)) == "answer_lost"
    assert time.monotonic() - asked_at < ANSWER_SECONDS
    # The next generation of the same engine is complete, because no more entries are lost.
    engine.answer = lambda engine, request: engine.event(request.id, "done", reply_of(request), number=written + 1)
    assert outcome(ask(api, stream=stream)) == "done"


@pytest.mark.parametrize("taken", [False, True])
def test_a_request_that_vanished_from_redis_is_an_error_unless_an_engine_has_it(
    api: Api, redis_client: redis.Redis, taken: bool
) -> None:
    """FLUSHALL removes the request, its notification and its start marker, as may happen while a model loads."""
    alive = redis_client.pubsub()
    alive.subscribe(keys.presence("alive"))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, api, stream=False)
        raw = None
        until = time.monotonic() + 10
        while not redis_client.llen("generate"):
            assert time.monotonic() < until
            time.sleep(0.01)
        [key] = redis_client.keys(keys.generate_request("*"))
        raw = redis_client.get(key)
        redis_client.flushall()
        emptied_at = time.monotonic()
        if not taken:
            assert outcome(future.result(20)) == "answer_lost"
            assert time.monotonic() - emptied_at < ANSWER_SECONDS
            return
        request = GenerationRequest.model_validate(json.loads(str(raw)))
        stream = keys.generate_stream(request.id)
        while time.monotonic() - emptied_at < ANSWER_SECONDS:
            redis_client.xadd(stream, beacon("alive", [request.id], 0))
            time.sleep(0.5)
        assert not future.done()
        engine = Engine.__new__(Engine)
        engine.redis, engine.name = redis_client, "alive"
        engine.event(request.id, "done", reply_of(request), number=1)
        assert outcome(future.result(20)) == "done"
