"""A stand-in for the engine, which takes requests from Redis and publishes the events that a test chooses."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from common.redis import keys
from common.redis.generation_events import encode_generation_event, entry
from common.redis.generation_request import GenerationRequest
from tests.integration.api.conftest import Api

Answer = Callable[["Engine", GenerationRequest], None]


class Engine:
    """A thread that takes Celery messages from the queue `generate` and calls `answer` for each request."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)
        self.name = ""
        self.answer: Answer = complete_answer
        self.requests: list[GenerationRequest] = []
        self.left = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def event(self, request_id: str, name: str, data: dict[str, Any], number: int | None = None) -> None:
        """Publish an event of the request; `number` is its position in the stream, if given."""
        self.redis.xadd(
            keys.generate_stream(request_id),
            entry(self.name, [encode_generation_event(request_id, name, data)], number),
        )

    def until_cancelled(self, request_id: str) -> None:
        """Wait until the api cancels the request, then set `left`, for which the test waits."""
        while not self._stop.is_set() and not self.redis.exists(keys.generate_cancelled(request_id)):
            self._stop.wait(0.01)
        self.left.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.redis.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self.redis.brpop(["generate"], timeout=0.2)
            if not message:
                continue
            [request_id] = json.loads(celery_body(message[1]))[0]
            with self.redis.pipeline(transaction=True) as pipeline:
                pipeline.getdel(keys.generate_request(request_id))
                pipeline.set(keys.generate_begun(request_id), self.name, ex=60)
                [raw, _] = pipeline.execute()
            if raw is not None:
                request = GenerationRequest.model_validate_json(str(raw))
                self.requests.append(request)
                self.answer(self, request)


def celery_body(message: str) -> str:
    """Return the decoded body of a Celery message, which is JSON."""
    return base64.b64decode(json.loads(message)["body"]).decode()


def reply_of(request: GenerationRequest) -> dict[str, Any]:
    """Return the data of the event `done` for the request."""
    return {
        "text": request.prompt.upper(),
        "tokensGenerated": 2,
        "elapsedMs": 1.5,
        "finishReason": "length",
        "truncated": 0,
        "trajectory": [{"index": 0, "id": 5, "logProb": -0.5}],
        "effective": {"topK": request.top_k},
    }


def complete_answer(engine: Engine, request: GenerationRequest) -> None:
    """Publish two tokens if the request asks for a stream, and then the event `done`."""
    if request.stream:
        for index in range(2):
            engine.event(request.id, "token", {"index": index, "text": "ab"[index]})
    engine.event(request.id, "done", reply_of(request))


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    engine = Engine(redis_url)
    yield engine
    engine.close()


@pytest.fixture
def checkpoint(api: Api) -> str:
    return make_checkpoint(api)


def make_checkpoint(api: Api) -> str:
    """Write placeholder files for a model and a policy, and return the reference of the model."""
    (api.experiment_folder("exp-1") / "model.safetensors").write_bytes(b"x")
    (api.experiment_folder("exp-2") / "rl_checkpoint_final.pth").write_bytes(b"x")
    return "exp-1/model.safetensors"
