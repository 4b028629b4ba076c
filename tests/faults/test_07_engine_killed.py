"""Fault 7 of 31, second part: kill -9 of the generator's engine process while it streams to a client.

The client of the killed engine gets an error; waiting and later clients are served. The test has no jobs, so the
checker is not used. The first part of the fault, a killed process group of a trainer, is in `test_08_trainer_killed`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from services.generator.engine_protocol import ENGINE_MODULE
from tests.integration.acceptance.stack import Stack
from tests.integration.acceptance.tiny_model import MODEL, save_tiny_model
from tidal_client import read_events

ENGINE_SECONDS = 60.0
"""Longest time in seconds that this test waits for a new engine, which must import torch first.

The specification has no limit for it.
"""


@pytest.fixture
def stack(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Start api and generator. The model is tiny, and its completions almost always have the maximum length."""
    save_tiny_model(tmp_path / "experiments")
    with Stack(database_url, redis_url, tmp_path) as running:
        running.start("generator", "generator", TIDAL_GENERATOR_THREADS="1", TIDAL_GENERATOR_DEVICE="cpu")
        running.start_control_plane()
        yield running


def engines(stack: Stack) -> list[psutil.Process]:
    children = psutil.Process(stack.processes["generator"].pid).children(recursive=True)
    return [child for child in children if ENGINE_MODULE in child.cmdline()]


def ask(stack: Stack, tokens: int) -> httpx.Response:
    body = {"checkpoint": MODEL, "prompt": "Once upon", "maxTokens": tokens}
    return stack.http.post("/api/generate", json=body, timeout=ENGINE_SECONDS)


def test_fault_07_the_client_of_a_killed_engine_gets_an_error_and_the_others_are_served(
    stack: Stack, rng: random.Random
) -> None:
    stack.wait_for("the engine", lambda: ask(stack, 2).status_code == 200, ENGINE_SECONDS)
    [before] = engines(stack)
    waiting: list[httpx.Response] = []
    neighbour = threading.Thread(target=lambda: waiting.append(ask(stack, 5)))
    body: dict[str, Any] = {"checkpoint": MODEL, "prompt": "Once upon", "maxTokens": 4096, "stream": True}
    with stack.http.stream("POST", "/api/generate", json=body, timeout=ENGINE_SECONDS) as reply:
        events = read_events(reply)
        heard = [next(events) for _ in range(rng.randint(1, 60))]
        neighbour.start()
        os.kill(before.pid, signal.SIGKILL)
        heard += list(events)
    *tokens, last = heard
    assert [event.name for event in tokens] == ["token"] * len(tokens)
    assert [event.data["index"] for event in tokens] == list(range(len(tokens))), "no gap before the error"
    assert (last.name, last.data["status"], last.data["code"]) == ("error", 503, "generator_restarted")
    neighbour.join(ENGINE_SECONDS)
    assert [reply.status_code for reply in waiting] == [200], "it had not begun, so it is passed to the fresh engine"
    assert ask(stack, 5).status_code == 200
    [after] = engines(stack)
    assert after.pid != before.pid
