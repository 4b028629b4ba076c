"""The engine over a real Redis: its events for valid, invalid, delayed and cancelled requests."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.child.socket import CHILD_FD_VARIABLE
from common.controller import load_policy
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from common.redis import keys
from services.generator.engine_protocol import ENGINE_MODULE, EngineChannel
from tests.integration.generator.engine_requests import EXPERIMENT, MODEL, POLICY, events, request
from tests.integration.generator.engine_requests import experiments as experiments
from tests.integration.generator.serving import Serving
from tests.paths import ROOT
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR, EVENT_TOKEN

torch.set_num_threads(1)


@pytest.fixture
def engine(redis_url: str, experiments: Path) -> Iterator[Serving]:
    with redis.Redis.from_url(redis_url) as client:
        serving = Serving(client, experiments)
        yield serving
        serving.close()


def wait_until_started(client: redis.Redis, request_id: str) -> None:
    """Wait for the first event of a request. A beacon, which the engine sends every second, is not an event."""
    until = time.monotonic() + 20
    while not events(client, request_id):
        assert time.monotonic() < until
        time.sleep(0.01)


def presence_subscriptions(client: redis.Redis, name: str) -> int:
    """Return the number of presence subscriptions with this name in Redis: 1 while the process runs, otherwise 0."""
    [(_, count)] = client.pubsub_numsub(keys.presence(name))
    return int(count)


@pytest.mark.parametrize("mode", ["none", "fixed", "random", "learned"])
def test_the_reply_equals_the_library_and_the_streamed_tokens(
    engine: Serving, redis_client: redis.Redis, experiments: Path, mode: str
) -> None:
    rl_checkpoint = POLICY if mode == "learned" else None
    request(redis_client, "r1", gating_mode=mode, seed=4, modulation=0.4, stream=True, rl_checkpoint=rl_checkpoint)
    engine.handle("r1")
    *tokens, (last, reply) = events(redis_client, "r1")
    assert last == EVENT_DONE
    expected = generate(
        load_model(experiments / MODEL),
        "Once upon",
        max_tokens=12,
        gating_mode=mode,
        seed=4,
        modulation=0.4,
        policy=load_policy(experiments / POLICY) if rl_checkpoint else None,
    )
    assert reply["text"] == expected.text
    assert reply["finishReason"] == "length"
    assert reply["tokensGenerated"] == 12
    assert [kind for kind, _ in tokens] == [EVENT_TOKEN] * 12
    assert [data for _, data in tokens] == reply["trajectory"]
    assert "".join(data["text"] for _, data in tokens) == reply["text"]
    assert reply["effective"]["gatingMode"] == mode
    assert reply["effective"]["seed"] == 4
    assert 0 < redis_client.ttl(keys.generate_stream("r1")) <= keys.GENERATE_STREAM_SECONDS


def test_a_client_that_does_not_stream_gets_the_first_token_and_the_reply(
    engine: Serving, redis_client: redis.Redis
) -> None:
    """The event of the first token shows that the request has started."""
    request(redis_client, "r1")
    engine.handle("r1")
    assert [kind for kind, _ in events(redis_client, "r1")] == [EVENT_TOKEN, EVENT_DONE]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"checkpoint": f"{EXPERIMENT}/nothing.pth"}, 404, "not_found"),
        ({"checkpoint": "20260101-000000-other/final"}, 404, "not_found"),
        ({"checkpoint": f"{EXPERIMENT}/../../secret.pth"}, 422, "invalid_input"),
        ({"checkpoint": "/etc/passwd"}, 422, "invalid_input"),
        ({"checkpoint": f"{EXPERIMENT}/broken.pth"}, 422, "invalid_checkpoint"),
        ({"checkpoint": POLICY}, 422, "invalid_checkpoint"),
        ({"gating_mode": "learned", "rl_checkpoint": MODEL}, 422, "invalid_checkpoint"),
        ({"gating_mode": "learned"}, 422, "invalid_input"),
        ({"temperature": 0.0005}, 422, "invalid_input"),
    ],
    ids=str,
)
def test_an_invalid_request_gets_its_error_and_the_next_one_is_served(
    engine: Serving, redis_client: redis.Redis, fields: dict[str, Any], status: int, code: str
) -> None:
    request(redis_client, "bad", **fields)
    request(redis_client, "good")
    engine.handle("bad")
    engine.handle("good")
    [(kind, error)] = events(redis_client, "bad")
    assert (kind, error["status"], error["code"]) == (EVENT_ERROR, status, code)
    assert events(redis_client, "good")[-1][0] == EVENT_DONE


def test_a_request_that_expired_in_the_queue_gets_503(engine: Serving, redis_client: redis.Redis) -> None:
    engine.handle("expired")
    [(kind, error)] = events(redis_client, "expired")
    assert (kind, error["status"], error["code"]) == (EVENT_ERROR, 503, "queue_timeout")


def test_a_request_handed_over_twice_is_answered_once(engine: Serving, redis_client: redis.Redis) -> None:
    request(redis_client, "r1", stream=True)
    engine.handle("r1")
    before = events(redis_client, "r1")
    engine.handle("r1")
    assert events(redis_client, "r1") == before


def test_the_engine_that_took_a_request_and_its_presence_can_be_found(
    engine: Serving, redis_client: redis.Redis
) -> None:
    request(redis_client, "r1")
    engine.engine.submit("r1")
    engine.engine.step()
    name = engine.emitter.name
    assert redis_client.get(keys.generate_begun("r1")) == name
    engine.handle()
    until = time.monotonic() + 10
    while presence_subscriptions(redis_client, name) != 1:
        assert time.monotonic() < until
        time.sleep(0.01)
    engine.close()
    assert presence_subscriptions(redis_client, name) == 0


def test_a_generation_beyond_its_time_gets_503(redis_client: redis.Redis, redis_url: str, experiments: Path) -> None:
    with redis.Redis.from_url(redis_url) as client:
        request(redis_client, "slow", max_tokens=4096)
        serving = Serving(client, experiments, total_seconds=0.05)
        serving.handle("slow")
        serving.close()
    *_, (kind, error) = events(redis_client, "slow")
    assert (kind, error["status"], error["code"]) == (EVENT_ERROR, 503, "timeout")


def test_a_replaced_checkpoint_is_loaded_again(engine: Serving, redis_client: redis.Redis, experiments: Path) -> None:
    def answer(request_id: str) -> str:
        request(redis_client, request_id, checkpoint=f"{EXPERIMENT}/changing.safetensors", seed=1)
        engine.handle(request_id)
        reply: dict[str, Any] = events(redis_client, request_id)[-1][1]
        return str(reply["text"])

    path = experiments / EXPERIMENT / "changing.safetensors"
    save_model(load_model(experiments / MODEL), path)
    first = answer("r1")
    torch.manual_seed(9)
    save_model(TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)), path)
    assert answer("r2") != first


class Child:
    """A real engine process, together with the worker's end of its channel."""

    def __init__(self, redis_url: str, experiments: Path) -> None:
        self.channel, inherited = EngineChannel.pair()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TIDAL_REDIS_URL": redis_url,
            "TIDAL_EXPERIMENTS_DIR": str(experiments),
            "TIDAL_GENERATOR_THREADS": "1",
            CHILD_FD_VARIABLE: str(inherited.fileno()),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", ENGINE_MODULE], env=environment, pass_fds=[inherited.fileno()], cwd=ROOT
        )
        inherited.close()
        self.messages = self.channel.messages()


@pytest.fixture
def child(redis_url: str, experiments: Path) -> Iterator[Child]:
    started = Child(redis_url, experiments)
    yield started
    started.channel.close()
    started.process.kill()
    started.process.wait()


def test_the_child_answers_and_ends_with_its_worker(child: Child, redis_client: redis.Redis) -> None:
    assert next(child.messages)["type"] == "ready"
    request(redis_client, "r1")
    child.channel.send("generate", "r1")
    assert next(child.messages) == {"type": "done", "request_id": "r1"}
    assert events(redis_client, "r1")[-1][0] == EVENT_DONE
    # Closing the channel simulates the end of the worker, during a generation that would take minutes.
    request(redis_client, "long", max_tokens=4096, stream=True)
    child.channel.send("generate", "long")
    wait_until_started(redis_client, "long")
    child.channel.close()
    assert child.process.wait(timeout=5) == 0


def test_a_cancelled_generation_stops_within_a_second(child: Child, redis_client: redis.Redis) -> None:
    assert next(child.messages)["type"] == "ready"
    request(redis_client, "long", max_tokens=4096, stream=True)
    child.channel.send("generate", "long")
    wait_until_started(redis_client, "long")
    started = time.monotonic()
    redis_client.set(keys.generate_cancelled("long"), "1", ex=60)
    kill_timer = threading.Timer(30, child.process.kill)
    kill_timer.start()
    assert next(child.messages) == {"type": "done", "request_id": "long"}
    kill_timer.cancel()
    assert time.monotonic() - started < 2.0  # the specified limit is 1 s
    kind, error = events(redis_client, "long")[-1]
    assert (kind, error["code"], error["status"]) == (EVENT_ERROR, "cancelled", 503), (
        "the client sees that the completion is incomplete"
    )
    assert error["tokensGenerated"] < 4096
