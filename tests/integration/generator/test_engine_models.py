"""More models than can stay loaded, and few slots: which models stay, the order of requests, disconnected clients."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.generation import BatchEngine, DecodingModel, new_engine
from common.model import ModelConfig, TransformerLM
from common.redis import keys
from services.generator import engine as engine_module
from services.generator import model_cache
from tests.integration.generator.engine_requests import EXPERIMENT, MODEL, events, request
from tests.integration.generator.engine_requests import experiments as experiments
from tests.integration.generator.serving import Serving
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR

OTHER = f"{EXPERIMENT}/second.safetensors"
WIDTH = 16
"""The d_model of the second model."""
DROPPED_SECONDS = 2.0
"""Seconds within which the request of a disconnected client must end; the specified limit is 1 s."""


@pytest.fixture
def other(experiments: Path) -> str:
    torch.manual_seed(5)
    model = TransformerLM(ModelConfig(d_model=WIDTH, num_layers=1, num_heads=2, ffn_dim=16, context_length=32))
    save_model(model, experiments / OTHER)
    return OTHER


@pytest.fixture
def serving(redis_url: str, experiments: Path) -> Iterator[Serving]:
    with redis.Redis.from_url(redis_url) as client:
        made = Serving(client, experiments, slots=6)
        yield made
        made.close()


class CountingLoader:
    """A loader that counts the models it has loaded, and loads the second model only once `allowed` is set."""

    def __init__(self) -> None:
        self.allowed = threading.Event()
        self.names: list[str] = []

    def __call__(self, path: Path, *, device: torch.device) -> TransformerLM:
        self.names.append(path.name)
        if path.name == Path(OTHER).name:
            assert self.allowed.wait(30)
        return load_model(path, device=device)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingLoader]:
    counting = CountingLoader()
    monkeypatch.setattr(model_cache, "load_model", counting)
    yield counting
    counting.allowed.set()


def step_until(serving: Serving, reached: Callable[[], bool], seconds: float = 75.0) -> None:
    """Run steps of the engine until `reached` returns True; fail the test after `seconds`."""
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, f"not reached within {seconds} s"
        serving.engine.step()
        serving.emitter.drain()


def has_events(client: redis.Redis, request_id: str) -> Callable[[], bool]:
    return lambda: bool(events(client, request_id))


def cancel(client: redis.Redis, *request_ids: str) -> None:
    for request_id in request_ids:
        client.set(keys.generate_cancelled(request_id), "1", ex=60)


def test_a_model_in_use_is_neither_loaded_again_nor_given_a_second_batch(
    redis_url: str, redis_client: redis.Redis, experiments: Path, other: str, loads: CountingLoader
) -> None:
    loads.allowed.set()
    with redis.Redis.from_url(redis_url) as client, closing(Serving(client, experiments, capacity=1)) as serving:
        serving.engine.submit(request(redis_client, "a", max_tokens=4096, stream=True))
        step_until(serving, has_events(redis_client, "a"))
        serving.engine.submit(request(redis_client, "b", checkpoint=other, max_tokens=4096, stream=True))
        step_until(serving, has_events(redis_client, "b"))
        [model, _] = serving.engine.batches
        serving.engine.submit(request(redis_client, "again", max_tokens=4096, stream=True))
        step_until(serving, has_events(redis_client, "again"))
        assert loads.names == [Path(MODEL).name, Path(other).name]
        assert len(serving.engine.batches) == 2
        assert len(serving.engine.batches[model].active) == 2
        cancel(redis_client, "a", "b", "again")
        serving.handle()


def test_the_model_of_a_request_that_waits_for_slots_stays_loaded(
    redis_url: str, redis_client: redis.Redis, experiments: Path, other: str, loads: CountingLoader
) -> None:
    loads.allowed.set()
    with redis.Redis.from_url(redis_url) as client, closing(Serving(client, experiments, capacity=1)) as serving:
        serving.engine.submit(request(redis_client, "b", checkpoint=other, max_tokens=4096, stream=True))
        step_until(serving, has_events(redis_client, "b"))
        serving.engine.submit(request(redis_client, "large", n=4, max_tokens=2))
        step_until(serving, lambda: serving.admission.loaded == 1)
        cancel(redis_client, "b")
        copy = f"{EXPERIMENT}/copy.safetensors"
        save_model(load_model(experiments / MODEL), experiments / copy)
        serving.engine.submit(request(redis_client, "third", checkpoint=copy, max_tokens=2))
        serving.engine.submit(request(redis_client, "again", max_tokens=2))
        serving.handle()
        assert sorted(serving.finished) == ["again", "b", "large", "third"]
        assert loads.names.count(Path(MODEL).name) == 1


def test_a_slow_load_delays_no_request_for_a_loaded_model(
    serving: Serving, redis_client: redis.Redis, other: str, loads: CountingLoader
) -> None:
    serving.engine.submit(request(redis_client, "long", max_tokens=4096, stream=True))
    step_until(serving, has_events(redis_client, "long"))
    slow = [request(redis_client, f"slow{number}", checkpoint=other, max_tokens=2) for number in range(5)]
    for request_id in slow:
        serving.engine.submit(request_id)
    step_until(serving, lambda: len(serving.admission.loading) == 5)
    serving.engine.submit(request(redis_client, "quick", max_tokens=2))
    serving.engine.step()
    serving.emitter.drain()
    assert has_events(redis_client, "quick")(), "it joins in its first step"
    cancel(redis_client, *slow)
    step_until(serving, lambda: set(slow) <= set(serving.finished), DROPPED_SECONDS)
    assert not serving.admission.loading
    loads.allowed.set()
    cancel(redis_client, "long")
    serving.handle()


def test_during_a_slow_load_requests_of_disconnected_clients_are_dropped_and_others_served(
    serving: Serving, redis_client: redis.Redis, other: str, loads: CountingLoader
) -> None:
    serving.handle(request(redis_client, "first", max_tokens=2))
    serving.engine.submit(request(redis_client, "slow", checkpoint=other, max_tokens=2))
    step_until(serving, lambda: Path(OTHER).name in loads.names)
    serving.engine.submit(request(redis_client, "quick", max_tokens=2))
    step_until(serving, lambda: "quick" in serving.finished)
    cancel(redis_client, "slow")
    step_until(serving, lambda: "slow" in serving.finished, DROPPED_SECONDS)
    assert serving.engine.idle
    [(kind, error)] = events(redis_client, "slow")
    assert (kind, error["code"]) == (EVENT_ERROR, "cancelled")


def test_a_large_request_whose_client_disconnected_delays_no_other(serving: Serving, redis_client: redis.Redis) -> None:
    serving.engine.submit(request(redis_client, "long", max_tokens=4096, stream=True))
    step_until(serving, has_events(redis_client, "long"))
    serving.engine.submit(request(redis_client, "large", n=6, max_tokens=4096))
    step_until(serving, lambda: bool(serving.admission.loading))
    cancel(redis_client, "large")
    for number in range(12):
        serving.engine.submit(request(redis_client, f"small{number}", max_tokens=2))
    small = {f"small{number}" for number in range(12)}
    step_until(serving, lambda: {"large", *small} <= set(serving.finished), DROPPED_SECONDS)
    assert "long" not in serving.finished
    cancel(redis_client, "long")
    serving.handle()


def test_requests_of_clients_that_disconnect_while_waiting_for_slots_are_dropped(
    serving: Serving, redis_client: redis.Redis
) -> None:
    serving.engine.submit(request(redis_client, "long", n=6, max_tokens=4096, stream=True))
    step_until(serving, has_events(redis_client, "long"))
    serving.engine.submit(request(redis_client, "waits", n=2))
    cancel(redis_client, "waits")
    step_until(serving, lambda: "waits" in serving.finished, DROPPED_SECONDS)
    assert serving.finished == ["waits"]
    cancel(redis_client, "long")
    serving.handle()


def test_small_requests_pass_a_large_one_but_not_for_ever(serving: Serving, redis_client: redis.Redis) -> None:
    """Six sequences (the number of slots) may overtake the large request; after these, the large request is next."""
    serving.engine.submit(request(redis_client, "long", max_tokens=200))
    step_until(serving, has_events(redis_client, "long"))
    serving.engine.submit(request(redis_client, "large", n=6, max_tokens=2))
    serving.handle(*(request(redis_client, f"small{number}", max_tokens=2) for number in range(12)))
    assert {request_id[:5] for request_id in serving.finished[:6]} == {"small"}
    assert serving.finished[6:8] == ["long", "large"]
    assert len(serving.finished) == 14


@pytest.mark.parametrize(
    ("error", "code"),
    [(torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"), (RuntimeError("detail"), "internal")],
)
def test_a_model_whose_engine_cannot_be_made_fails_alone(
    serving: Serving,
    redis_client: redis.Redis,
    other: str,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
) -> None:
    def make(model: DecodingModel, **wanted: Any) -> BatchEngine:
        if model.config.d_model == WIDTH:
            raise error
        return new_engine(model, **wanted)

    monkeypatch.setattr(engine_module, "new_engine", make)
    good = request(redis_client, "good", max_tokens=20)
    serving.handle(good, request(redis_client, "bad", checkpoint=other))
    [(kind, error_data)] = events(redis_client, "bad")
    assert (kind, error_data["code"]) == (EVENT_ERROR, code)
    assert events(redis_client, "good")[-1][0] == EVENT_DONE
