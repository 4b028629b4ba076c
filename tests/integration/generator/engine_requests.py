"""A store with a tiny model, requests for an engine, and the events that the engine publishes for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.checkpoint import save_model
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.model import ModelConfig, TransformerLM
from common.redis import keys
from common.redis.generation_events import read_entry

EXPERIMENT = "20260101-000000-demo"
MODEL = f"{EXPERIMENT}/model.safetensors"
POLICY = f"{EXPERIMENT}/rl_checkpoint_final.pth"


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store an experiment with a tiny model that hardly ever emits end-of-text, a policy and a broken file."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / EXPERIMENT).mkdir()
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(d_model=24, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    with torch.no_grad():
        model.output_projection.bias[load_tokenizer().eot_token] = -30.0
    save_model(model, folder / MODEL)
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, folder / POLICY)
    (folder / EXPERIMENT / "broken.pth").write_bytes(b"noise")
    (folder.parent / "secret.pth").write_bytes(b"outside")
    return folder


def request(client: redis.Redis, request_id: str, **fields: Any) -> str:
    """Store a request at the Redis key that the api uses; `fields` may have values that the api would reject."""
    document = {"id": request_id, "checkpoint": MODEL, "prompt": "Once upon", "max_tokens": 12, **fields}
    client.set(keys.generate_request(request_id), json.dumps(document), ex=60)
    return request_id


def events(client: redis.Redis, request_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a request.

    The request ids of these tests contain no name of an api process, so each request has its own stream.
    """
    entries = client.xrange(keys.generate_stream(request_id))
    return [(part.event, json.loads(part.data)) for _, fields in entries for part in read_entry(fields)]
