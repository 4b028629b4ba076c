"""Fixtures for tests of `/v1`: the real engine with a tiny model, and a client of the `openai` package."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis
import torch

from common.checkpoint import load_model, save_model
from common.data import load_tokenizer
from common.generation import generate
from common.model import ModelConfig, TransformerLM
from services.generator.emitter import EventBatch
from tests.integration.api.conftest import TOKEN, Api
from tests.integration.api.engine_stand_in import celery_body
from tests.integration.generator.serving import Serving

torch.set_num_threads(1)

MODEL = "exp-1/model.safetensors"


class Generator:
    """A thread that passes the requests in the queue `generate` to the real engine, one at a time.

    `replies` contains the data of the last event of each request.
    """

    def __init__(self, url: str, experiments: Path) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=10)
        self._serving = Serving(self._redis, experiments, slots=8)
        self.replies: list[dict[str, Any]] = []
        send = self._serving.emitter.send

        def record(batch: EventBatch) -> None:
            ends = [end.event() for end in batch.ends]
            self.replies += [data for _, data in ends]
            send(batch)

        setattr(self._serving.emitter, "send", record)  # noqa: B010
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._serving.close()
        self._redis.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._redis.brpop(["generate"], timeout=0.2)
            if message:
                [request_id] = json.loads(celery_body(message[1].decode()))[0]
                self._serving.handle(request_id)


@pytest.fixture
def model(api: Api) -> TransformerLM:
    """Save a model as MODEL in the store; end-of-text is unlikely, so its completions have the maximum length."""
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(d_model=16, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    with torch.no_grad():
        model.output_projection.bias[load_tokenizer().eot_token] = -30.0
    path = api.experiment_folder("exp-1") / "model.safetensors"
    save_model(model, path)
    return load_model(path)


@pytest.fixture
def generator(api: Api, model: TransformerLM, redis_url: str) -> Iterator[Generator]:
    generator = Generator(redis_url, api.settings.experiments_dir)
    yield generator
    generator.close()


@pytest.fixture
def client(api: Api, generator: Generator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=TOKEN, max_retries=0, timeout=20) as client:
        yield client


def written(model: TransformerLM, prompt: str, seed: int, *, max_tokens: int = 12, top_k: int | None = None) -> str:
    """Return the completion that `common.generation` generates with OpenAI's default parameters."""
    result = generate(
        model, prompt, max_tokens=max_tokens, temperature=1.0, top_k=top_k, repetition_penalty=1.0, seed=seed
    )
    return result.text
