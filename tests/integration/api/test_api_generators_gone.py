"""What clients hear when no generator takes their request, or the one that did is gone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from common.jobs.generation_request import GenerationRequest
from common.metrics import keys
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.test_api_generate import Engine, make_checkpoint, reply_of
from tests.integration.api.test_api_generate import checkpoint as checkpoint
from tests.integration.api.test_api_generate import engine as engine


@pytest.mark.parametrize("stream", [False, True])
def test_clients_of_a_lost_engine_are_told_and_those_of_a_living_one_are_not(
    api: Api, engine: Engine, redis_client: redis.Redis, checkpoint: str, stream: bool
) -> None:
    """The mark of an engine vanishes some seconds after it; its host may be gone with it, so the api looks."""
    redis_client.set(keys.generate_engine("alive"), "1")

    def begin(engine: Engine, request: GenerationRequest) -> None:
        engine.name = str(request.prompt)
        engine.event(request.id, "token", {"index": 0})

    engine.answer = begin

    def ask(prompt: str) -> httpx.Response:
        return api.admin.post("/api/generate", json={"checkpoint": checkpoint, "prompt": prompt, "stream": stream})

    with ThreadPoolExecutor(2) as pool:
        living, lost = pool.submit(ask, "alive"), pool.submit(ask, "killed")
        told = lost.result(15)
        assert ("generator_lost" in told.text, told.status_code) == (True, 200 if stream else 503)
        assert not living.done()
        [reader] = {request.id.partition(".")[0] for request in engine.requests}
        assert redis_client.exists(keys.generate_reader(reader)), "engines see that somebody waits"
        for request in engine.requests:
            engine.event(request.id, "done", reply_of(request))
        assert living.result(15).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_of_an_engine_that_was_lost_before_its_first_word_is_told(
    api: Api, engine: Engine, redis_client: redis.Redis, checkpoint: str, stream: bool
) -> None:
    """As while the model of the request was loading."""
    redis_client.set(keys.generate_engine("alive"), "1")

    def take(engine: Engine, request: GenerationRequest) -> None:
        engine.redis.set(keys.generate_begun(request.id), str(request.prompt))

    engine.answer = take

    def ask(prompt: str) -> httpx.Response:
        return api.admin.post("/api/generate", json={"checkpoint": checkpoint, "prompt": prompt, "stream": stream})

    with ThreadPoolExecutor(2) as pool:
        living, lost = pool.submit(ask, "alive"), pool.submit(ask, "killed")
        told = lost.result(15)
        assert ("generator_lost" in told.text, told.status_code) == (True, 503)
        assert not living.done()
        for request in engine.requests:
            engine.event(request.id, "done", reply_of(request))
        assert living.result(15).status_code == 200


def test_nobody_takes_the_request_in_time(serve: RunApi, redis_client: redis.Redis) -> None:
    with serve(generate_queue_seconds=0.3) as api:
        reply = api.admin.post("/api/generate", json={"checkpoint": make_checkpoint(api)})
        assert (reply.status_code, reply.json()["code"]) == (503, "generation_queue_timeout")
        assert not redis_client.keys("tidal:generate:request:*")
        assert len(list(redis_client.scan_iter("tidal:generate:cancelled:*"))) == 1
