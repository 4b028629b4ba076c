"""Generation over the real Valkey with a stand-in for the engine, which implements the engine's protocol."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
import redis

from common.redis.generation_request import GenerationRequest
from tests.integration.api.conftest import Api, Events, RunApi
from tests.integration.api.engine_stand_in import Engine, complete_answer, make_checkpoint, reply_of
from tests.integration.api.engine_stand_in import checkpoint as checkpoint
from tests.integration.api.engine_stand_in import engine as engine


def test_the_reply_is_that_of_the_engine(api: Api, engine: Engine, checkpoint: str) -> None:
    body = {"checkpoint": "exp-1/final", "prompt": "once", "maxTokens": 2, "topK": None, "seed": 7, "topP": 0.5}
    reply = api.admin.post("/api/generate", json=body)
    [request] = engine.requests
    assert reply.status_code == 200
    assert reply.json() == reply_of(request)
    assert (request.checkpoint, request.prompt, request.seed) == (checkpoint, "once", 7)
    assert (request.max_tokens, request.top_k, request.top_p, request.stream) == (2, None, 0.5, False)


def test_the_defaults_are_those_of_the_specification(api: Api, engine: Engine, checkpoint: str) -> None:
    assert api.admin.post("/api/generate", json={"checkpoint": checkpoint}).status_code == 200
    [request] = engine.requests
    assert (request.max_tokens, request.temperature, request.top_k, request.top_p) == (50, 0.8, 50, 1.0)
    assert (request.repetition_penalty, request.gating_mode, request.modulation) == (1.2, "none", 0.5)


def test_a_stream_sends_tokens_and_then_the_complete_reply(api: Api, engine: Engine, checkpoint: str) -> None:
    body = {"checkpoint": checkpoint, "prompt": "once", "stream": True}
    with api.http.stream("POST", "/api/generate", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-ratelimit-remaining"] == "4"
        events = list(Events(reply))
    assert [event.name for event in events] == ["token", "token", "done"]
    assert "".join(event.data["text"] for event in events[:2]) == "ab"
    assert events[2].data["text"] == "ONCE"


@pytest.mark.parametrize("stream", [False, True])
def test_a_generation_that_was_finished_is_not_marked_as_cancelled(
    api: Api, engine: Engine, redis_client: redis.Redis, checkpoint: str, stream: bool
) -> None:
    assert api.admin.post("/api/generate", json={"checkpoint": checkpoint, "stream": stream}).status_code == 200
    api.admin.get("/healthz")  # the reply to a second request shows that the clean-up of the first request is done
    assert not list(redis_client.scan_iter("tidal:generate:cancelled:*"))


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine_is_a_problem(api: Api, engine: Engine, checkpoint: str, stream: bool) -> None:
    error = {"code": "invalid_checkpoint", "message": "weights are damaged", "status": 422}
    engine.answer = lambda engine, request: engine.event(request.id, "error", error)
    reply = api.admin.post("/api/generate", json={"checkpoint": checkpoint, "stream": stream})
    assert reply.headers["content-type"] == "application/problem+json"
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_checkpoint")
    assert reply.json()["detail"] == "weights are damaged"


def test_an_error_after_the_first_token_is_an_event(api: Api, engine: Engine, checkpoint: str) -> None:
    def broken(engine: Engine, request: GenerationRequest) -> None:
        engine.event(request.id, "token", {"index": 0})
        engine.event(request.id, "error", {"code": "internal", "message": "oh", "status": 500})

    engine.answer = broken
    with api.admin.stream("POST", "/api/generate", json={"checkpoint": checkpoint, "stream": True}) as reply:
        events = list(Events(reply))
    assert [event.name for event in events] == ["token", "error"]
    assert events[1].data == {"code": "internal", "message": "oh", "status": 500}


@pytest.mark.parametrize(
    ("change", "location"),
    [
        ({"topK": 1025}, "body.topK"),
        ({"topK": 0}, "body.topK"),
        ({"maxTokens": 4097}, "body.maxTokens"),
        ({"maxTokens": 0}, "body.maxTokens"),
        ({"temperature": -0.5}, "body.temperature"),
        ({"topP": 1.5}, "body.topP"),
        ({"topP": 0}, "body.topP"),
        ({"temperature": 100.5}, "body.temperature"),
        ({"temperature": 1e-40}, "body.temperature"),
        ({"repetitionPenalty": 0}, "body.repetitionPenalty"),
        ({"repetitionPenalty": 1e-39}, "body.repetitionPenalty"),
        ({"seed": -1}, "body.seed"),
        ({"seed": 2**63}, "body.seed"),
        ({"prompt": "a" * 100_001}, "body.prompt"),
        ({"modulation": 2}, "body.modulation"),
        ({"gatingMode": "magic"}, "body.gatingMode"),
        ({"gatingMode": "learned"}, "body"),
        ({"rlCheckpoint": "exp-2/rl_checkpoint_final.pth"}, "body"),
        ({"checkpoint": "nosuch/final"}, "body.checkpoint"),
        ({"checkpoint": "/etc/passwd"}, "body.checkpoint"),
        ({"checkpoint": "exp-2/rl_checkpoint_final.pth"}, "body.checkpoint"),
        ({"gatingMode": "learned", "rlCheckpoint": "exp-1/model.safetensors"}, "body.rlCheckpoint"),
        ({"prompt": 5}, "body.prompt"),
        ({"top_k_": 5}, "body.top_k_"),
    ],
)
def test_a_value_out_of_range_is_named(api: Api, checkpoint: str, change: dict[str, Any], location: str) -> None:
    reply = api.admin.post("/api/generate", json={"checkpoint": checkpoint, **change})
    assert reply.status_code == 422, reply.text
    assert location in [item["location"] for item in reply.json()["errors"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_rejects_the_next_request(serve: RunApi, redis_client: redis.Redis, stream: bool) -> None:
    with serve(generate_queue_limit=3) as api:
        redis_client.rpush("generate", "one", "two", "three")
        reply = api.admin.post("/api/generate", json={"checkpoint": make_checkpoint(api), "stream": stream})
        assert (reply.status_code, reply.json()["code"]) == (429, "generation_queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert redis_client.llen("generate") == 3
        assert not redis_client.keys("tidal:generate:*")


def test_a_working_engine_may_use_the_total_time_without_sending_tokens(serve: RunApi, engine: Engine) -> None:
    late = threading.Event()

    def slow(engine: Engine, request: GenerationRequest) -> None:
        late.wait(0.6)
        complete_answer(engine, request)

    engine.answer = slow
    with serve(generate_queue_seconds=0.3) as api:
        assert api.admin.post("/api/generate", json={"checkpoint": make_checkpoint(api)}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_generation_that_takes_too_long_ends_with_an_error(serve: RunApi, engine: Engine, stream: bool) -> None:
    engine.answer = lambda engine, request: engine.until_cancelled(request.id)
    with serve(generate_queue_seconds=0.2, generate_total_seconds=0.4) as api:
        body = {"checkpoint": make_checkpoint(api), "stream": stream}
        reply = api.admin.post("/api/generate", json=body)
        assert (reply.status_code, reply.json()["code"]) == (503, "generation_timeout")
    assert engine.left.wait(5)


@pytest.mark.parametrize("stream", [False, True])
def test_the_engine_is_notified_when_the_client_disconnects(
    api: Api, engine: Engine, checkpoint: str, stream: bool
) -> None:
    begun = threading.Event()

    def endless(engine: Engine, request: GenerationRequest) -> None:
        engine.event(request.id, "token", {"index": 0})
        begun.set()
        engine.until_cancelled(request.id)

    engine.answer = endless

    def leave() -> None:
        timeout = httpx.Timeout(10, read=0.3)
        with httpx.Client(base_url=api.url, timeout=timeout) as client, pytest.raises(httpx.ReadTimeout):
            body = {"checkpoint": checkpoint, "stream": stream}
            with client.stream("POST", "/api/generate", json=body) as reply:
                assert list(reply.iter_lines()) is not None

    leave()
    assert begun.wait(5)
    assert engine.left.wait(5)
