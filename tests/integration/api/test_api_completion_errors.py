"""Errors, limits and disconnected clients, as clients of the `openai` package see them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
import redis

from common.config import Settings
from common.redis.generation_request import GenerationRequest
from tests.integration.api.conftest import TOKEN, Api, RunApi
from tests.integration.api.engine_stand_in import Engine, make_checkpoint
from tests.integration.api.engine_stand_in import engine as engine
from tests.integration.api.openai_fixtures import MODEL, Generator
from tests.integration.api.openai_fixtures import client as client
from tests.integration.api.openai_fixtures import generator as generator
from tests.integration.api.openai_fixtures import model as model
from tidal_client.wire.generation_event import EVENT_ERROR, EVENT_TOKEN

LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "ratelimit", "ratelimit-policy")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings with a rate limit whose bucket does not refill during a test, even on a slow machine."""
    return settings.model_copy(update={"rate_limit_refill_seconds": 600.0})


def openai_client(api: Api, token: str = TOKEN, **options: Any) -> openai.OpenAI:
    """Return a client of the `openai` package."""
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key=token, max_retries=0, **{"timeout": 20, **options})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 4097}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 1e-40}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 65}, "n"),
    ({"prompt": ["a"] * 5, "n": 52}, "n"),
    ({"prompt": ["a"] * 5, "best_of": 52}, "best_of"),
    ({"n": 17, "max_tokens": 4096}, "n"),
    ({"prompt": ["a"] * 17, "max_tokens": 4096}, "n"),
    ({"best_of": 17, "max_tokens": 4096}, "best_of"),
    ({"logprobs": 6}, "logprobs"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"presence_penalty": 2.1}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"logit_bias": {"262": 101}}, "logit_bias"),
    ({"logit_bias": {"the": 1}}, "logit_bias"),
    ({"best_of": 1, "n": 2}, "best_of"),
    ({"best_of": 3, "stream": True}, "best_of"),
    ({"suffix": "the end"}, "suffix"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["a", 5]}, "prompt"),
    ({"prompt": [[1], 5]}, "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"prompt": "a" * 100_001}, "prompt"),
    ({"prompt": [1, -1]}, "prompt"),
    ({"seed": 2**63}, "seed"),
    ({"top_k": 1025}, "top_k"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"repetition_penalty": 1e-39}, "repetition_penalty"),
    ({"modulation": 1.5}, "modulation"),
    ({"gating_mode": "magic"}, "gating_mode"),
    ({"gating_mode": "learned"}, "rl_checkpoint"),
    ({"gating_mode": "fixed", "rl_checkpoint": "exp-2/rl_checkpoint_final.pth"}, "rl_checkpoint"),
    ({"rl_checkpoint": MODEL}, "rl_checkpoint"),
    ({"min_p": 0.1}, "min_p"),
]


def test_an_invalid_parameter_is_named(api: Api) -> None:
    make_checkpoint(api)
    with openai_client(api) as opened_client:
        for wrong, param in REFUSED:
            with pytest.raises(openai.BadRequestError) as refused:
                opened_client.post("/completions", cast_to=object, body={"model": MODEL, "prompt": "x", **wrong})
            error = refused.value
            assert (error.param, error.type) == (param, "invalid_request_error"), wrong
            assert isinstance(error.body, dict)
            assert set(error.body) == {"message", "type", "param", "code"}
            assert error.body["message"].startswith(f"{param}: "), wrong


def test_a_request_that_only_the_model_can_reject_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="logit_bias names token 60000"):
        client.completions.create(model=MODEL, prompt="x", logit_bias={"60000": 1})
    with pytest.raises(openai.BadRequestError, match="prompt has token 50257"):
        client.completions.create(model=MODEL, prompt=[1, 50257])
    with pytest.raises(openai.BadRequestError, match="n is 9, but the generator decodes at most 8"):
        client.completions.create(model=MODEL, prompt="x", n=9)


def test_an_unknown_model_is_not_found(api: Api) -> None:
    make_checkpoint(api)
    with openai_client(api) as opened_client:
        for name in ("nosuch/final", "exp-2/rl_checkpoint_final.pth", "/etc/passwd"):
            with pytest.raises(openai.NotFoundError, match="GET /v1/models") as missing:
                opened_client.completions.create(model=name, prompt="x")
            assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError) as empty:
            opened_client.chat.completions.create(model=MODEL, messages=[])
        assert empty.value.param == "messages"
        with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
            opened_client.embeddings.create(model=MODEL, input="x")


def test_closed_reads_need_a_token(serve: RunApi) -> None:
    with (
        serve(require_auth_for_reads=True) as api,
        openai_client(api, "wrong") as stranger,
        openai_client(api) as opened_client,
    ):
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert refused.value.type == "authentication_error"
        with pytest.raises(openai.AuthenticationError):
            stranger.models.retrieve(MODEL)
        assert opened_client.models.list().data == []


def test_callers_without_a_token_are_limited_and_every_reply_has_the_headers(api: Api, client: openai.OpenAI) -> None:
    """Five requests are allowed, whatever their result; the sixth gets 429 with the time to wait."""
    with openai_client(api, "anything") as stranger:
        complete = stranger.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=1)
        with stranger.completions.with_streaming_response.create(
            model=MODEL, prompt="x", max_tokens=1, stream=True
        ) as streamed:
            streamed.read()
        with pytest.raises(openai.NotFoundError) as missing:
            stranger.completions.create(model="nosuch/final", prompt="x")
        with pytest.raises(openai.BadRequestError) as refused:
            stranger.completions.create(model=MODEL, prompt="x", n=9)
        last = api.http.post("/api/generate", json={"checkpoint": MODEL, "maxTokens": 1})
        replies = [complete.http_response, streamed.http_response, missing.value.response, refused.value.response, last]
        assert [reply.headers["x-ratelimit-remaining"] for reply in replies] == ["4", "3", "2", "1", "0"]
        with pytest.raises(openai.RateLimitError) as limited:
            stranger.completions.create(model=MODEL, prompt="x", max_tokens=1)
        replies.append(limited.value.response)
    replies.append(api.http.post("/api/generate", json={"checkpoint": MODEL, "maxTokens": 1, "stream": True}))
    for reply in replies:
        assert all(reply.headers[name] for name in LIMIT_HEADERS), reply.headers
        assert reply.headers["x-ratelimit-limit"] == "5"
        assert reply.headers["ratelimit-policy"] == '"generate";q=5;w=3000'
    assert [reply.status_code for reply in replies] == [200, 200, 404, 400, 200, 429, 429]
    for reply in replies[5:]:
        assert 1 <= int(reply.headers["retry-after"]) <= 600
    assert limited.value.type == "rate_limit_error"
    owner = client.completions.with_raw_response.create(model=MODEL, prompt="x", max_tokens=1)
    assert "x-ratelimit-limit" not in owner.headers


def test_a_request_that_no_generator_accepts_in_time_fails(serve: RunApi) -> None:
    with serve(generate_queue_seconds=0.3) as api, openai_client(api) as opened_client:
        make_checkpoint(api)
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as refused:
                opened_client.completions.create(model=MODEL, prompt="x", stream=stream)
            assert (refused.value.status_code, refused.value.type) == (503, "server_error")
            assert refused.value.code == "generation_queue_timeout"
            assert int(refused.value.response.headers["retry-after"]) >= 1


def test_a_full_queue_is_a_rate_limit(serve: RunApi, redis_client: redis.Redis) -> None:
    with serve(generate_queue_limit=1) as api, openai_client(api) as opened_client:
        make_checkpoint(api)
        redis_client.rpush("generate", "one")
        with pytest.raises(openai.RateLimitError) as refused:
            opened_client.completions.create(model=MODEL, prompt="x")
        assert refused.value.code == "generation_queue_full"
        assert int(refused.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("leaves", ["closes the stream", "has no time"])
def test_generation_stops_when_the_client_disconnects(
    api: Api, client: openai.OpenAI, generator: Generator, leaves: str
) -> None:
    """The engine of this test handles one request at a time, so the second reply proves that the first request has
    ended."""
    arguments: dict[str, Any] = {"model": MODEL, "prompt": "x", "n": 8, "max_tokens": 4096}
    if leaves == "has no time":
        with openai_client(api, timeout=0.5) as hasty, pytest.raises(openai.APITimeoutError):
            hasty.completions.create(**arguments)
    else:
        stream = client.completions.create(**arguments, stream=True)
        next(iter(stream))
        stream.close()
    client.completions.create(model=MODEL, prompt="x", max_tokens=1)
    [cut] = [reply for reply in generator.replies if reply.get("code") == "cancelled"]
    assert len(generator.replies) == 2
    assert cut["tokensGenerated"] < 8 * 4096


def test_an_error_in_the_middle_of_a_stream_is_raised(api: Api, engine: Engine) -> None:
    def broken(engine: Engine, request: GenerationRequest) -> None:
        engine.event(request.id, EVENT_TOKEN, {"index": 0, "text": "a"})
        error = {"code": "accelerator_failed", "message": "the accelerator failed", "status": 500}
        engine.event(request.id, EVENT_ERROR, error)

    engine.answer = broken
    parts: list[str] = []
    with openai_client(api) as opened_client, pytest.raises(openai.APIError, match="the accelerator failed") as failed:
        stream = opened_client.completions.create(model=make_checkpoint(api), prompt="x", stream=True)
        parts.extend(part.choices[0].text for part in stream)
    assert failed.value.code == "accelerator_failed"


def test_every_error_under_v1_has_openais_format(api: Api) -> None:
    with suppress(httpx.HTTPError):
        big = api.http.post("/v1/completions", content=b"x" * (2 * 1024 * 1024))
        assert (big.status_code, set(big.json())) == (413, {"error"})
    replies = [
        api.http.get("/v1/nothing"),
        api.http.get("/v1/completions"),
        api.http.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"}),
        api.http.post("/v1/completions", json=[]),
        api.http.post("/v1/completions", json={"prompt": "x"}),
    ]
    assert [reply.status_code for reply in replies] == [404, 405, 400, 400, 400]
    for reply in replies:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert reply.json()["error"]["message"]
    assert replies[-1].json()["error"]["param"] == "model"
