"""Many concurrent requests over a real Redis: the reply to each request, waiting requests, and freed slots."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from common.redis import keys
from services.generator.emitter import EventBatch, FinalEvent
from services.generator.engine import MAX_PREFILL_SEQUENCES
from services.generator.running_request import LARGE_TOKENS, RunningRequest
from tests.integration.generator.engine_requests import EXPERIMENT, MODEL, events, request
from tests.integration.generator.engine_requests import experiments as experiments
from tests.integration.generator.serving import Serving
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR, EVENT_TOKEN

OTHER = f"{EXPERIMENT}/other.safetensors"


@pytest.fixture
def serving(redis_url: str, experiments: Path) -> Iterator[Serving]:
    with redis.Redis.from_url(redis_url) as client:
        made = Serving(client, experiments, slots=6)
        yield made
        made.close()


def texts_of(events: list[tuple[str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for kind, data in events if kind == EVENT_TOKEN)


def test_more_requests_than_slots_over_two_checkpoints_are_all_answered_as_if_alone(
    serving: Serving, redis_client: redis.Redis, experiments: Path
) -> None:
    torch.manual_seed(5)
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    save_model(TransformerLM(config), experiments / OTHER)
    count = MAX_PREFILL_SEQUENCES + 8
    for number in range(count):
        checkpoint = OTHER if number % 3 == 0 else MODEL
        request(
            redis_client, f"r{number}", checkpoint=checkpoint, prompt="a" * number, seed=number, stream=True,
            max_tokens=3 + number % 5,
        )  # fmt: skip
    serving.handle(*(f"r{number}" for number in range(count)))
    assert sorted(serving.finished) == sorted(f"r{number}" for number in range(count))
    models = {path: load_model(experiments / path) for path in (MODEL, OTHER)}
    for number in range(count):
        *tokens, (last, reply) = events(redis_client, f"r{number}")
        alone = generate(
            models[OTHER if number % 3 == 0 else MODEL], "a" * number, max_tokens=3 + number % 5, seed=number
        )
        assert last == EVENT_DONE
        assert (reply["text"], reply["tokensGenerated"]) == (alone.text, len(alone.token_ids))
        assert [data["id"] for _, data in tokens] == alone.token_ids


def test_choices_have_consecutive_seeds(serving: Serving, redis_client: redis.Redis, experiments: Path) -> None:
    request(redis_client, "r1", n=3, seed=40, stream=True, top_log_probs=2)
    serving.handle("r1")
    *tokens, (_, reply) = events(redis_client, "r1")
    model = load_model(experiments / MODEL)
    expected = [generate(model, "Once upon", max_tokens=12, seed=40 + number).text for number in range(3)]
    assert [choice["text"] for choice in reply["choices"]] == expected
    assert reply["text"] == expected[0]
    for number, text in enumerate(expected):
        mine = [data for _, data in tokens if data["choice"] == number]
        assert [data["index"] for data in mine] == list(range(12))
        assert "".join(data["text"] for data in mine) == text
        assert all(len(data["alternatives"]) == 2 for data in mine)


def test_the_last_event_has_all_tokens_once_and_only_if_requested(serving: Serving, redis_client: redis.Redis) -> None:
    request(redis_client, "all", n=2)
    request(redis_client, "none", n=2, trajectory=False, stream=True)
    request(redis_client, "left", n=2, max_tokens=4096, stream=True)
    serving.handle("all", "none")
    serving.engine.submit("left")
    while not events(redis_client, "left"):
        serving.engine.step()
        serving.emitter.drain()
    redis_client.set(keys.generate_cancelled("left"), "1", ex=60)
    serving.handle()
    replies = {name: events(redis_client, name)[-1][1] for name in ("all", "none", "left")}
    assert [len(choice["trajectory"]) for choice in replies["all"]["choices"]] == [12, 12]
    assert "trajectory" not in replies["all"]
    assert [choice["tokensGenerated"] for choice in replies["none"]["choices"]] == [12, 12]
    assert replies["left"]["code"] == "cancelled"
    assert '"trajectory"' not in json.dumps([replies["none"], replies["left"]])


def test_the_last_event_is_built_outside_the_decoding_thread_and_a_large_one_in_its_own(
    serving: Serving, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = {}
    build = RunningRequest.last_event

    def watched(running: RunningRequest) -> tuple[str, dict[str, Any]]:
        threads[running.request.id] = threading.current_thread().name
        return build(running)

    monkeypatch.setattr(RunningRequest, "last_event", watched)
    small = request(redis_client, "small")
    serving.handle(small, request(redis_client, "large", n=4, max_tokens=LARGE_TOKENS // 3))
    assert threads["small"] == "emitter"
    assert threads["large"].startswith("encoder")
    assert sorted(serving.finished) == ["large", "small"]
    tokens = [len(choice["trajectory"]) for choice in events(redis_client, "large")[-1][1]["choices"]]
    assert tokens == [LARGE_TOKENS // 3] * 4


def test_only_the_requests_of_a_killed_api_process_are_ended(serving: Serving, redis_client: redis.Redis) -> None:
    """Of three api processes, only the requests of the killed one end.

    One process stays alive. Another one has no subscription, like a process that is reconnecting to Redis. Redis is
    flushed during the test, which must not count as the end of any process.
    """
    lives, killed = redis_client.pubsub(), redis_client.pubsub()
    lives.subscribe(keys.presence("lives"))
    killed.subscribe(keys.presence("killed"))

    def step_for(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not serving.finished:
            serving.engine.step()
            serving.emitter.drain()

    for reader in ("lives", "killed", "connects"):
        serving.engine.submit(request(redis_client, f"{reader}.1", max_tokens=50_000))
    step_for(0.3)
    redis_client.flushall()
    step_for(1.2)  # enough time for six presence checks
    assert not serving.finished
    killed.close()
    step_for(20)
    assert serving.finished == ["killed.1"]
    assert events(redis_client, "killed.1")[-1][1]["code"] == "cancelled"
    redis_client.set(keys.generate_cancelled("connects.1"), "1", ex=60)
    redis_client.set(keys.generate_cancelled("lives.1"), "1", ex=60)
    serving.handle()


def test_tokens_do_not_wait_for_a_large_reply(serving: Serving, redis_client: redis.Redis) -> None:
    allowed = threading.Event()

    def build() -> tuple[str, dict[str, Any]]:
        assert allowed.wait(20)
        return EVENT_DONE, {"text": "long"}

    serving.emitter.send(EventBatch(ends=[FinalEvent("large", build, large=True)]))
    serving.emitter.send(EventBatch(events=[("small", EVENT_TOKEN, {"index": 0})], finished=["small"]))
    assert redis_client.xread({keys.generate_stream("small"): 0}, block=9000)
    assert not events(redis_client, "large")
    allowed.set()
    serving.emitter.drain()
    assert events(redis_client, "large") == [(EVENT_DONE, {"text": "long"})]
    assert serving.finished == ["small", "large"]


def test_more_choices_than_slots_are_refused(serving: Serving, redis_client: redis.Redis) -> None:
    request(redis_client, "many", n=7)
    request(redis_client, "good", n=6)
    serving.handle("many", "good")
    assert events(redis_client, "many")[-1][1]["status"] == 422
    assert len(events(redis_client, "good")[-1][1]["choices"]) == 6


def test_a_stop_string_ends_the_text(serving: Serving, redis_client: redis.Redis) -> None:
    request(redis_client, "whole", seed=4)
    serving.handle("whole")
    whole = events(redis_client, "whole")[-1][1]["text"]
    stop = whole[5:9]
    request(redis_client, "cut", seed=4, stop=[stop], stream=True)
    serving.handle("cut")
    reply = events(redis_client, "cut")[-1][1]
    assert (reply["text"], reply["finishReason"]) == (whole[: whole.index(stop)], "stop")
    assert texts_of(events(redis_client, "cut")) == reply["text"]


def test_slots_of_disconnected_clients_go_to_waiting_requests(serving: Serving, redis_client: redis.Redis) -> None:
    """Six long requests fill the slots. When their clients disconnect, the seventh request is answered."""
    for number in range(6):
        serving.engine.submit(request(redis_client, f"long{number}", max_tokens=4096, stream=True))
    # Run steps until the model is loaded and the slots are filled.
    while sum(len(batch.active) for batch in serving.engine.batches.values()) < 6:
        serving.engine.step()
    serving.engine.submit(request(redis_client, "next", max_tokens=2))
    for _ in range(3):
        serving.engine.step()
    serving.emitter.drain()
    assert not events(redis_client, "next")
    assert redis_client.exists(keys.generate_request("next")), "a waiting request can still expire in Redis"
    for number in range(6):
        redis_client.set(keys.generate_cancelled(f"long{number}"), "1", ex=60)
    serving.handle()
    assert events(redis_client, "next")[-1][0] == EVENT_DONE
    for number in range(6):
        kind, reply = events(redis_client, f"long{number}")[-1]
        assert (kind, reply["code"]) == (EVENT_ERROR, "cancelled")


def test_a_request_whose_client_disconnected_in_the_queue_is_not_started(
    serving: Serving, redis_client: redis.Redis
) -> None:
    redis_client.set(keys.generate_cancelled(request(redis_client, "left")), "1", ex=60)
    serving.handle("left")
    assert serving.finished == ["left"]
    assert [kind for kind, _ in events(redis_client, "left")] == [EVENT_ERROR]


def test_a_fault_of_one_batch_leaves_the_other_running(
    serving: Serving, redis_client: redis.Redis, experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    save_model(TransformerLM(config), experiments / OTHER)
    serving.engine.submit(request(redis_client, "good", max_tokens=400))
    serving.engine.submit(request(redis_client, "bad", checkpoint=OTHER, max_tokens=400))
    broken = None
    while broken is None:  # until the model is loaded
        serving.engine.step()
        broken = next((batch for model, batch in serving.engine.batches.items() if model.config.d_model == 16), None)

    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(broken, "advance", fail)
    serving.handle()
    kind, error = events(redis_client, "bad")[-1]
    assert (kind, error["code"]) == (EVENT_ERROR, "internal")
    assert "secret" not in error["message"]
    assert events(redis_client, "good")[-1][0] == EVENT_DONE
