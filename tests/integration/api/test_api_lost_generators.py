"""Clients get an error if no generator accepts their request, or if the generator is lost during the request."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone

import httpx
import pytest
import redis

from common.redis import keys
from common.redis.generation_request import GenerationRequest
from services.api.generations import CHECK_SECONDS
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.engine_stand_in import Engine, make_checkpoint, reply_of
from tests.integration.api.engine_stand_in import checkpoint as checkpoint
from tests.integration.api.engine_stand_in import engine as engine


def wait_for_requests(engine: Engine, count: int) -> None:
    until = time.monotonic() + 15
    while len(engine.requests) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def done_within(future: Future[httpx.Response], seconds: float) -> bool:
    """Return whether the reply has arrived after at most `seconds`."""
    try:
        future.result(seconds)
    except NotDone:
        return False
    return True


@pytest.mark.parametrize("stream", [False, True])
def test_only_clients_of_the_lost_engine_get_an_error(
    api: Api, engine: Engine, redis_client: redis.Redis, checkpoint: str, stream: bool
) -> None:
    """The presence subscription of an engine ends with its process. The api periodically checks the subscription."""
    alive, killed = redis_client.pubsub(), redis_client.pubsub()
    alive.subscribe(keys.presence("alive"))
    killed.subscribe(keys.presence("killed"))

    def begin(engine: Engine, request: GenerationRequest) -> None:
        engine.name = str(request.prompt)
        engine.event(request.id, "token", {"index": 0})

    engine.answer = begin

    def ask(prompt: str) -> httpx.Response:
        return api.admin.post("/api/generate", json={"checkpoint": checkpoint, "prompt": prompt, "stream": stream})

    with ThreadPoolExecutor(2) as pool:
        living, lost = pool.submit(ask, "alive"), pool.submit(ask, "killed")
        wait_for_requests(engine, 2)
        [reader] = {request.id.partition(".")[0] for request in engine.requests}
        assert redis_client.pubsub_numsub(keys.presence(reader)) == [(keys.presence(reader), 1)], "engines see the api"
        assert not done_within(lost, 2 * CHECK_SECONDS)
        killed.close()
        reply = lost.result(15)
        assert ("generator_lost" in reply.text, reply.status_code) == (True, 200 if stream else 503)
        assert not living.done()
        for request in engine.requests:
            engine.event(request.id, "done", reply_of(request))
        assert living.result(15).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_of_an_engine_lost_before_its_first_event_gets_an_error(
    api: Api, engine: Engine, redis_client: redis.Redis, checkpoint: str, stream: bool
) -> None:
    """The engine is lost before its first event, for example while it loads the model."""
    alive, killed = redis_client.pubsub(), redis_client.pubsub()
    alive.subscribe(keys.presence("alive"))
    killed.subscribe(keys.presence("killed"))

    def take(engine: Engine, request: GenerationRequest) -> None:
        engine.redis.set(keys.generate_begun(request.id), str(request.prompt))

    engine.answer = take

    def ask(prompt: str) -> httpx.Response:
        return api.admin.post("/api/generate", json={"checkpoint": checkpoint, "prompt": prompt, "stream": stream})

    with ThreadPoolExecutor(2) as pool:
        living, lost = pool.submit(ask, "alive"), pool.submit(ask, "killed")
        wait_for_requests(engine, 2)
        assert not done_within(lost, 2 * CHECK_SECONDS)
        killed.close()
        reply = lost.result(15)
        assert ("generator_lost" in reply.text, reply.status_code) == (True, 503)
        assert not living.done()
        for request in engine.requests:
            engine.event(request.id, "done", reply_of(request))
        assert living.result(15).status_code == 200


def test_a_request_that_no_generator_accepts_in_time_fails(serve: RunApi, redis_client: redis.Redis) -> None:
    with serve(generate_queue_seconds=0.3) as api:
        reply = api.admin.post("/api/generate", json={"checkpoint": make_checkpoint(api)})
        assert (reply.status_code, reply.json()["code"]) == (503, "generation_queue_timeout")
        assert not redis_client.keys("tidal:generate:request:*")
        assert len(list(redis_client.scan_iter("tidal:generate:cancelled:*"))) == 1
