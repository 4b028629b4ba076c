"""What the engine does when something around it breaks: Redis, the accelerator, its own code, its worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import torch

from common.jobs.generation_request import GenerationRequest
from common.metrics import keys
from services.generator.model_cache import ModelCache
from services.local.servers import ValkeyServer
from tests.integration.generator.serving import Serving

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import os, subprocess, sys, time
from common.jobs.child_socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE
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


def make_engine(client: redis.Redis, folder: Path) -> Serving:
    return Serving(client, folder)


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
def test_a_fault_is_told_without_its_details(
    redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    """Only a fault of the accelerator ends the engine."""
    engine = make_engine(redis_client, tmp_path)
    monkeypatch.setattr(ModelCache, "model", failing(error))
    wanted = GenerationRequest(id="r1", checkpoint="a/b", prompt="")
    redis_client.set(keys.generate_request("r1"), wanted.model_dump_json())
    if code == "accelerator_failed":
        with pytest.raises(torch.AcceleratorError):
            engine.handle("r1")
    else:
        engine.handle("r1")
    [(_, fields)] = redis_client.xrange(keys.generate_stream("r1"))
    data = json.loads(fields["data"])
    assert (fields["event"], data["status"], data["code"]) == (keys.EVENT_ERROR, status, code)
    assert str(error) not in data["message"]


def test_a_request_that_is_no_request_is_refused(redis_client: redis.Redis, tmp_path: Path) -> None:
    redis_client.set(keys.generate_request("r1"), "{}")
    make_engine(redis_client, tmp_path).handle("r1")
    [(_, fields)] = redis_client.xrange(keys.generate_stream("r1"))
    assert json.loads(fields["data"])["status"] == 422


def test_the_engine_outlives_a_missing_redis_and_answers_when_it_is_back(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    try:
        with redis.Redis.from_url(server.url, socket_connect_timeout=1, retry=None, decode_responses=True) as client:
            engine = make_engine(client, tmp_path)
            server.stop()
            engine.handle("r1")
            server.start()
            client.set(keys.generate_request("r2"), "{}")
            engine.handle("r2")
            [(_, fields)] = client.xrange(keys.generate_stream("r2"))
            assert json.loads(fields["data"])["status"] == 422
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
