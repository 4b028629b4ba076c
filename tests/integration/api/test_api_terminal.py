"""`tidal generate` as a process against the real api: streamed tokens, stop strings, Ctrl-C, and one-line errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from common.redis.generation_request import GenerationRequest
from tests.integration.api.conftest import TOKEN, Api
from tests.integration.api.engine_stand_in import Engine, make_checkpoint
from tests.paths import ROOT


@pytest.fixture
def engine(redis_url: str) -> Iterator[Engine]:
    engine = Engine(redis_url)
    yield engine
    engine.close()


def hear_ctrl_c() -> None:
    """Restore the default handling of SIGINT, which a shell disables for its background jobs and their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(api: Api, *arguments: str) -> subprocess.Popen[str]:
    make_checkpoint(api)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TIDAL_URL": api.url, "TIDAL_AUTH_TOKEN": TOKEN}
    return subprocess.Popen(
        [sys.executable, "-m", "services.cli", "generate", "Once", "-c", "exp-1/final", *arguments],
        env={**environment, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )


def test_ctrl_c_prints_no_traceback_and_frees_the_slot(api: Api, engine: Engine) -> None:
    def never_ends(engine: Engine, request: GenerationRequest) -> None:
        engine.event(request.id, "token", {"index": 0, "text": " upon"})
        engine.until_cancelled(request.id)

    engine.answer = never_ends
    process = start(api, "--gating", "fixed")
    assert process.stdout is not None
    assert process.stdout.read(9) == "Once upon"  # the generation has not ended yet
    process.send_signal(signal.SIGINT)
    rest, remarks = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (rest, remarks) == ("\n", "stopped after 1 token\n")
    assert engine.left.wait(20)


def test_settings_reach_the_engine_and_the_complete_reply_is_json(api: Api, engine: Engine) -> None:
    process = start(api, "--stop", "end", "--stop", "\n\n", "--seed", "7", "--top-p", "0.5", "--json")
    printed, remarks = process.communicate(timeout=30)
    assert process.returncode == 0, remarks
    [request] = engine.requests
    assert (request.stop, request.seed, request.top_p, request.max_tokens) == (("end", "\n\n"), 7, 0.5, 120)
    answer = json.loads(printed)
    assert (answer["text"], answer["tokensGenerated"], answer["trajectory"][0]["id"]) == ("ONCE", 2, 5)


def test_an_error_of_the_api_is_one_line(api: Api, engine: Engine) -> None:
    process = start(api, "-c", "exp-9/final")
    printed, remarks = process.communicate(timeout=30)
    assert (process.returncode, printed) == (1, "")
    assert remarks.startswith("error: ") and "exp-9" in remarks and remarks.count("\n") == 1
    long = start(api, "--stop", "x" * 201)
    printed, remarks = long.communicate(timeout=30)
    assert (long.returncode, printed) == (1, "")
    assert "stop" in remarks and "200" in remarks and remarks.count("\n") == 1


def test_a_cancelled_generation_is_an_error_for_connected_clients(api: Api, engine: Engine) -> None:
    """The tokens before the cancellation are not a valid reply.

    `tidal generate` fails, `/api/generate` and `/v1` answer 503, and a stream that has begun ends with an error event.
    """
    message = "the generation was cancelled after 2 tokens"

    def cut(engine: Engine, request: GenerationRequest) -> None:
        for index in range(2 if request.stream else 1):
            engine.event(request.id, "token", {"index": index, "text": " upon"})
        engine.event(request.id, "error", {"code": "cancelled", "message": message, "status": 503})

    engine.answer = cut
    process = start(api)
    printed, remarks = process.communicate(timeout=30)
    assert process.returncode == 1
    assert (printed, remarks) == ("Once upon upon\n", f"error: {message}\n")
    body = {"checkpoint": "exp-1/final", "prompt": "Once"}
    complete = api.admin.post("/api/generate", json=body)
    assert (complete.status_code, complete.json()["code"], complete.json()["detail"]) == (503, "cancelled", message)
    streamed = api.admin.post("/api/generate", json=body | {"stream": True}).text
    assert streamed.count("event: token") == 2
    assert "event: done" not in streamed
    assert message in streamed.rpartition("event: error")[2]
    completion = {"model": "exp-1/final", "prompt": "Once"}
    refused = api.admin.post("/v1/completions", json=completion)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "cancelled")
    parts = api.admin.post("/v1/completions", json=completion | {"stream": True}).text
    assert message in parts
    assert '"finish_reason":"stop"' not in parts
    assert "[DONE]" not in parts
