"""Many requests at once over a real Redis: what each client reads, who waits, and who makes room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.generation import generate
from common.metrics import keys
from common.model import ModelConfig, TransformerLM
from services.generator.engine import PREFILL_TEXTS
from tests.integration.generator.serving import Serving
from tests.integration.generator.test_engine import EXPERIMENT, MODEL, events, request
from tests.integration.generator.test_engine import experiments as experiments

OTHER = f"{EXPERIMENT}/other.safetensors"


@pytest.fixture
def serving(redis_url: str, experiments: Path) -> Iterator[Serving]:
    with redis.Redis.from_url(redis_url) as client:
        made = Serving(client, experiments, slots=6)
        yield made
        made.close()


def texts_of(events: list[tuple[str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for kind, data in events if kind == keys.EVENT_TOKEN)


def test_more_requests_than_slots_over_two_checkpoints_are_all_answered_as_if_alone(
    serving: Serving, redis_client: redis.Redis, experiments: Path
) -> None:
    torch.manual_seed(5)
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    save_model(TransformerLM(config), experiments / OTHER)
    count = PREFILL_TEXTS + 8
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
        assert last == keys.EVENT_DONE
        assert (reply["text"], reply["tokensGenerated"]) == (alone.text, len(alone.token_ids))
        assert [data["id"] for _, data in tokens] == alone.token_ids


def test_choices_are_the_texts_of_consecutive_seeds(
    serving: Serving, redis_client: redis.Redis, experiments: Path
) -> None:
    request(redis_client, "r1", n=3, seed=40, stream=True, top_log_probs=2)
    serving.handle("r1")
    *tokens, (_, reply) = events(redis_client, "r1")
    model = load_model(experiments / MODEL)
    wanted = [generate(model, "Once upon", max_tokens=12, seed=40 + number).text for number in range(3)]
    assert [choice["text"] for choice in reply["choices"]] == wanted
    assert reply["text"] == wanted[0]
    for number, text in enumerate(wanted):
        mine = [data for _, data in tokens if data["choice"] == number]
        assert [data["index"] for data in mine] == list(range(12))
        assert "".join(data["text"] for data in mine) == text
        assert all(len(data["alternatives"]) == 2 for data in mine)


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


def test_clients_that_leave_make_room_for_those_that_wait(serving: Serving, redis_client: redis.Redis) -> None:
    """Six endless texts fill the slots; when their clients go, the seventh request is answered."""
    for number in range(6):
        serving.engine.submit(request(redis_client, f"long{number}", max_tokens=4096, stream=True))
    serving.engine.submit(request(redis_client, "next", max_tokens=2))
    for _ in range(3):
        serving.engine.turn()
    serving.emitter.drain()
    assert not events(redis_client, "next")
    assert redis_client.exists(keys.generate_request("next")), "what waits may still expire"
    for number in range(6):
        redis_client.set(keys.generate_cancelled(f"long{number}"), "1", ex=60)
    serving.handle()
    assert events(redis_client, "next")[-1][0] == keys.EVENT_DONE
    for number in range(6):
        kind, reply = events(redis_client, f"long{number}")[-1]
        assert (kind, reply["finishReason"]) == (keys.EVENT_DONE, "cancelled")


def test_a_request_whose_client_left_in_the_queue_is_not_begun(serving: Serving, redis_client: redis.Redis) -> None:
    redis_client.set(keys.generate_cancelled(request(redis_client, "left")), "1", ex=60)
    serving.handle("left")
    assert serving.finished == ["left"]
    assert [kind for kind, _ in events(redis_client, "left")] == [keys.EVENT_ERROR]


def test_a_fault_of_one_batch_leaves_the_other_running(
    serving: Serving, redis_client: redis.Redis, experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    config = ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=32)
    save_model(TransformerLM(config), experiments / OTHER)
    serving.engine.submit(request(redis_client, "good", max_tokens=400))
    serving.engine.submit(request(redis_client, "bad", checkpoint=OTHER, max_tokens=400))
    broken = None
    while broken is None:  # the loader takes its time
        serving.engine.turn()
        broken = next((its for model, its in serving.engine.batches.items() if model.config.d_model == 16), None)

    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(broken, "advance", fail)
    serving.handle()
    kind, error = events(redis_client, "bad")[-1]
    assert (kind, error["code"]) == (keys.EVENT_ERROR, "internal")
    assert "secret" not in error["message"]
    assert events(redis_client, "good")[-1][0] == keys.EVENT_DONE
