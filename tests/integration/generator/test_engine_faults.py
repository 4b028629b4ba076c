"""The engine's behaviour when Redis, the accelerator, its own code or its worker fails."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import torch

from common.redis import keys
from common.redis.generation_request import GenerationRequest
from services.generator.model_cache import ModelCache
from services.local.servers import ValkeyServer
from tests.integration.generator.engine_requests import events
from tests.integration.generator.serving import Serving
from tests.paths import ROOT
from tidal_client.wire.generation_event import EVENT_ERROR

WORKER = """
import os, subprocess, sys, time
from common.child.socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE
from services.generator.engine_protocol import ENGINE_MODULE, EngineChannel
channel, inherited = EngineChannel.pair()
child = subprocess.Popen(
    [sys.executable, "-m", ENGINE_MODULE],
    env={**os.environ, CHILD_FD_VARIABLE: str(inherited.fileno()), PARENT_PID_VARIABLE: str(os.getpid())},
    pass_fds=[inherited.fileno()],
)
inherited.close()
next(channel.messages())
print(child.pid, flush=True)
time.sleep(600)
"""


def make_engine(client: redis.Redis, folder: Path) -> closing[Serving]:
    return closing(Serving(client, folder))


def failing(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("secret detail"), 500, "internal"),
        (torch.OutOfMemoryError("CUDA out of memory"), 503, "out_of_memory"),
        (torch.AcceleratorError("device-side assert"), 500, "accelerator_failed"),
    ],
)
def test_a_fault_is_reported_without_its_details(
    redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    """Only an error of the accelerator ends the engine."""
    monkeypatch.setattr(ModelCache, "model", failing(error))
    stored = GenerationRequest(id="r1", checkpoint="a/b", prompt="")
    redis_client.set(keys.generate_request("r1"), stored.model_dump_json())
    ends = pytest.raises(torch.AcceleratorError) if code == "accelerator_failed" else nullcontext()
    with make_engine(redis_client, tmp_path) as engine, ends:
        engine.handle("r1")
    [(kind, data)] = events(redis_client, "r1")
    assert (kind, data["status"], data["code"]) == (EVENT_ERROR, status, code)
    assert str(error) not in data["message"]


def test_a_malformed_request_is_refused(redis_client: redis.Redis, tmp_path: Path) -> None:
    redis_client.set(keys.generate_request("r1"), "{}")
    with make_engine(redis_client, tmp_path) as engine:
        engine.handle("r1")
    assert [data["status"] for _, data in events(redis_client, "r1")] == [422]


def test_the_engine_outlives_a_missing_redis_and_answers_when_it_is_back(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    try:
        with (
            redis.Redis.from_url(server.url, socket_connect_timeout=1, retry=None, decode_responses=True) as client,
            make_engine(client, tmp_path) as engine,
        ):
            server.stop()
            engine.handle("r1")
            server.start()
            client.set(keys.generate_request("r2"), "{}")
            engine.handle("r2")
            assert [data["status"] for _, data in events(client, "r2")] == [422]
    finally:
        server.remove()


def test_the_child_dies_with_a_killed_worker(redis_url: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TIDAL_REDIS_URL": redis_url,
        "TIDAL_EXPERIMENTS_DIR": str(tmp_path),
        "TIDAL_GENERATOR_THREADS": "1",
    }
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
        try:
            child.wait(timeout=5)
        finally:
            if child.is_running():
                child.kill()
