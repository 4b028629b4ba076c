"""The requests that commands send, and their output for given replies of the api; a function replaces the api."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from common.errors import InvalidInputError, NotFoundError
from services.api.schemas.generate import GenerateRequest
from services.cli.commands import generate, jobs, steer
from services.cli.main import app
from services.cli.views.queue import time_until
from tests.unit import api_documents as documents
from tidal_client import Client
from tidal_client.wire.sampling import MIN_REPETITION_PENALTY, MIN_TEMPERATURE

JOB = documents.job(queuePosition=1)

DONE = {"text": " a cat", "tokensGenerated": 2, "elapsedMs": 10.0, "finishReason": "length"}


class Api:
    """A fake api that answers by path, records the requests, and filters experiments by the query."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((request.url.path, json.loads(request.content) if request.content else None))
        answer = self.answers.get(request.url.path)
        if request.url.path == "/api/experiments":
            wanted = {name: value for name, value in request.url.params.items() if name in ("type", "status")}
            found = [item for item in answer["experiments"] if wanted.items() <= item.items()]
            return httpx.Response(200, json={"experiments": found})
        if isinstance(answer, str):
            return httpx.Response(200, headers=documents.EVENTS, content=answer.encode())
        return (
            httpx.Response(404, json={"detail": "nothing there"})
            if answer is None
            else httpx.Response(200, json=answer)
        )


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    played = Api()

    def connect(url: str | None, token: str | None) -> Client:
        return Client("http://tidal", transport=httpx.MockTransport(played))

    for module in (jobs, generate, steer):
        monkeypatch.setattr(module, "connect", connect)
    return played


@pytest.fixture
def tidal() -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


def test_a_local_file_is_sent_along_and_another_name_is_the_servers(
    api: Api, tidal: Callable[..., Result], tmp_path: Path
) -> None:
    api.answers["/api/jobs"] = JOB
    path = tmp_path / "mine.yaml"
    path.write_text("training: {max_steps: 5}")
    assert tidal("jobs", "submit", "lm-training", "--config", str(path), "--data", "builtin:stories").exit_code == 0
    assert tidal("jobs", "submit", "rl-training", "-c", "demo/rl.yaml", "--checkpoint", "x/final").exit_code == 0
    assert [body for _, body in api.sent] == [
        {"type": "lm-training", "config": {"training": {"max_steps": 5}, "data": {"source": "builtin:stories"}}},
        {"type": "rl-training", "rlConfigPath": "demo/rl.yaml", "checkpoint": "x/final"},
    ]


def test_names_and_logs_are_text_and_neither_markup_nor_commands(api: Api, tidal: Callable[..., Result]) -> None:
    hostile = "\x1b]0;x\x07[/red]:cat:\x9b2J"
    job = {**JOB, "name": hostile, "status": "failed", "error": {"code": "user_error", "message": hostile}}
    api.answers = {
        "/api/jobs": {"jobs": [job]},
        "/api/jobs/job_1": job,
        "/api/jobs/job_1/events": {"events": []},
        "/api/jobs/job_1/logs": {
            "lines": [{"attempt": 1, "line": 1, "text": hostile}],
            "complete": True,
            "nextCursor": None,
        },
    }
    results = [tidal(*command.split()) for command in ("jobs list", "jobs show job_1", "jobs logs job_1")]
    assert [result.exit_code for result in results] == [0, 0, 0], [result.exception for result in results]
    for result in results:
        assert not {"\x1b", "\x07", "\x9b"} & set(result.output)
        assert "␛]0;x" in result.output and "[/red]:cat:" in result.output.replace("\n", "")
    answer = tidal("jobs", "list", "--json").output
    assert not {"\x1b", "\x07", "\x9b"} & set(answer)
    assert json.loads(answer)[0]["name"] == hostile


def test_samples_are_a_table_of_steps_for_each_prompt(api: Api, tidal: Callable[..., Result]) -> None:
    rows = [
        {"step": step, "samples": [{"prompt": p, "generated": f"{p} text\n\nof {step}"} for p in ("Once", "")]}
        for step in (500, 1000)
    ]
    api.answers = {
        "/api/jobs/job_1": JOB,
        f"/api/experiments/{JOB['experimentId']}/sample-history": {
            "experimentId": JOB["experimentId"],
            "rows": rows,
            "total": 2,
        },
    }
    output = tidal("jobs", "samples", "job_1").output
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    assert lines[0] == "Once" and "500 Once text of 500" in lines and "1,000 Once text of 1000" in lines
    assert lines.index("(new document)") > lines.index("1,000 Once text of 1000")
    assert "Once" not in tidal("jobs", "samples", "job_1", "--prompt", "2").output
    with pytest.raises(InvalidInputError, match="only 2 prompts"):
        tidal_error(tidal("jobs", "samples", "job_1", "--prompt", "3"))
    assert json.loads(tidal("jobs", "samples", "job_1", "--json").output)["rows"][1]["step"] == 1000


def tidal_error(result: Result) -> None:
    if result.exception is not None:
        raise result.exception


def test_json_is_the_reply_of_the_api(api: Api, tidal: Callable[..., Result]) -> None:
    api.answers["/api/jobs"] = {"jobs": [JOB]}
    (listed,) = json.loads(tidal("jobs", "list", "--json").output)
    shown = {key: value for key, value in JOB.items() if key != "payload"}  # lists omit the payload
    assert {key: listed[key] for key in shown} == shown


def test_last_is_the_newest_job(api: Api, tidal: Callable[..., Result]) -> None:
    api.answers = {"/api/jobs": {"jobs": [JOB]}, "/api/jobs/job_1": JOB, "/api/jobs/job_1/signal": JOB}
    assert tidal("jobs", "signal", "last", "stop").exit_code == 0
    assert api.sent[-1] == ("/api/jobs/job_1/signal", {"signal": "stop"})


def test_a_stream_is_printed_token_by_token_from_the_newest_model(api: Api, tidal: Callable[..., Result]) -> None:
    def experiment(name: str, kind: str, status: str) -> dict[str, Any]:
        return documents.experiment(id=name, type=kind, status=status)

    api.answers["/api/experiments"] = {
        "experiments": [
            experiment("newest-but-running", "lm", "running"),
            experiment("controller", "rl", "completed"),
            experiment("model", "lm", "completed"),
        ]
    }
    api.answers["/api/generate"] = (
        'event: token\ndata: {"text": " a", "modulation": 0.1}\n\n'
        'event: token\ndata: {"text": " cat", "modulation": 0.9}\n\n'
        f"event: done\ndata: {json.dumps(DONE)}\n\n"
    )
    shown = tidal("generate", "There was", "--gating", "learned", "--seed", "7")
    assert shown.exit_code == 0
    assert shown.stdout == "There was a cat\n"
    assert "2 tokens · 200 tokens/s · learned · model/final" in shown.stderr
    assert api.sent[-1][1] == {
        "checkpoint": "model/final",
        "rlCheckpoint": "controller/final",
        "prompt": "There was",
        "gatingMode": "learned",
        "maxTokens": 120,
        "seed": 7,
        "stream": True,
    }


def test_a_text_with_other_line_separators_is_printed_completely(api: Api, tidal: Callable[..., Result]) -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
    tokens = [{"text": character, "modulation": None} for character in text]
    done = {**DONE, "text": text, "trajectory": tokens}
    api.answers["/api/generate"] = "".join(
        f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for name, data in (*(("token", token) for token in tokens), ("done", done))
    )
    shown = tidal("generate", ">", "-c", "model/final")
    # Control characters are shown as symbols or omitted (see common.terminal).
    assert (shown.exit_code, shown.stdout) == (0, ">a\u2028b\u2029c�def␜g\n")
    shown = tidal("generate", ">", "-c", "model/final", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["text"]) == (0, text)


@pytest.mark.parametrize(
    ("option", "field", "least", "below"),
    [
        ("--temperature", "temperature", 0, -0.0001),
        ("--temperature", "temperature", MIN_TEMPERATURE, 0.0009),
        ("--repetition-penalty", "repetitionPenalty", MIN_REPETITION_PENALTY, 0.009),
        ("--top-p", "topP", 0.001, 0),
    ],
)
def test_what_the_api_takes_can_be_asked_for(
    api: Api, tidal: Callable[..., Result], option: str, field: str, least: float, below: float
) -> None:
    api.answers["/api/generate"] = "event: done\ndata: " + json.dumps(DONE) + "\n\n"
    assert tidal("generate", "There was", "-c", "model/final", option, str(least)).exit_code == 0
    assert api.sent[-1][1][field] == least
    GenerateRequest.model_validate({"checkpoint": "model/final", field: least})
    sent = len(api.sent)
    assert tidal("generate", "There was", "-c", "model/final", option, str(below)).exit_code != 0
    assert len(api.sent) == sent
    with pytest.raises(ValidationError):
        GenerateRequest.model_validate({"checkpoint": "model/final", field: below})


def test_a_request_that_is_refused_prints_no_text(api: Api, tidal: Callable[..., Result]) -> None:
    refused = tidal("generate", "There was", "--checkpoint", "nothing/final")
    assert (refused.exit_code, refused.stdout) == (1, "")


def test_a_missing_local_file_is_an_error_before_anything_is_sent(api: Api, tidal: Callable[..., Result]) -> None:
    failed = tidal("jobs", "submit", "lm-training", "--config", "./nothing.yaml")
    assert isinstance(failed.exception, InvalidInputError)
    assert "./nothing.yaml: no such file" in failed.exception.message
    assert api.sent == []


def test_without_a_model_the_error_explains_how_to_train_one(api: Api, tidal: Callable[..., Result]) -> None:
    api.answers["/api/experiments"] = {"experiments": []}
    failed = tidal("generate", "hello")
    assert isinstance(failed.exception, NotFoundError)
    assert "tidal jobs submit lm-training" in failed.exception.message


def test_logs_are_read_to_their_end(api: Api, tidal: Callable[..., Result]) -> None:
    lines = [{"attempt": 1, "line": n, "text": f"line {n} [not markup]"} for n in (1, 2)]
    api.answers = {
        "/api/jobs/job_1": {**JOB, "status": "completed"},
        "/api/jobs/job_1/logs": {"lines": lines, "nextCursor": "1:2", "complete": True},
    }
    assert tidal("jobs", "logs", "job_1", "--follow").stdout == "line 1 [not markup]\nline 2 [not markup]\n"


def test_the_queue_shows_limits_places_and_predictions(api: Api, tidal: Callable[..., Result]) -> None:
    waiting = {"id": "job_9", "priority": 5, "position": 1, "predictedStart": None, "notBefore": None}
    lm = {"type": "lm-training", "limit": 1, "running": 1, "stale": 0, "pending": 1, "usualSeconds": 125.0}
    waiting["createdAt"] = documents.TIME
    free = {
        "type": "evaluation",
        "limit": None,
        "running": 0,
        "stale": 0,
        "pending": 0,
        "usualSeconds": None,
        "jobs": [],
    }
    worker = {"worker": "w", "host": "h", "device": "cpu", "state": "busy", "job": "job_8"}
    queue = {"queue": "training", "workers": [worker], "types": [{**lm, "jobs": [waiting]}, free]}
    api.answers["/api/queue"] = {"queues": [queue]}
    words = tidal("jobs", "queue").stdout.split()
    assert " ".join(words).startswith("training: 1 worker alive, 1 busy")
    for row in ("lm-training 1 1 0 1 2:05", "evaluation none 0 0 0", "job_9 lm-training 1 5 unknown"):
        assert row in " ".join(words)
    assert json.loads(tidal("jobs", "queue", "--json").stdout)[0]["types"][0]["usualSeconds"] == 125.0


def test_a_predicted_start_is_shown_relative_to_now() -> None:
    now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    texts = [time_until(None if s is None else now + timedelta(seconds=s), now=now) for s in (None, -3, 2, 30, 185)]
    assert texts == ["unknown", "now", "now", "in 30 s", "in 3:05"]


PREDICTION = {
    "parameters": 1_234_567,
    "flopsPerToken": 1e6,
    "steps": 5,
    "tokens": 4096,
    "machines": [
        {
            "machine": "abc",
            "description": "Made-up CPU, 2 cores",
            "device": "cpu",
            "memoryBytes": 2_000_000_000,
            "memoryLimitBytes": 1_000_000_000,
            "fits": False,
            "durationSeconds": 90.0,
            "tokensPerSecond": 1000.0,
            "basis": "2 earlier runs",
            "warnings": ["The training needs about 2.0 GB of memory, but the machine has 1.0 GB."],
        }
    ],
}


def test_a_submission_shows_what_the_training_will_need(api: Api, tidal: Callable[..., Result]) -> None:
    api.answers["/api/jobs"] = documents.job(prediction=PREDICTION)
    submitted = tidal("jobs", "submit", "lm-training")
    assert submitted.stderr.splitlines()[:3] == [
        "1,234,567 parameters, 5 steps, 4,096 tokens",
        "Made-up CPU, 2 cores: about 2.00 GB of 1.00 GB memory, about 90 s, 1,000 tokens/s (2 earlier runs)",
        "The training needs about 2.0 GB of memory, but the machine has 1.0 GB.",
    ]
    dry = {"type": "lm-training", "experimentType": "lm", "payload": {}, "wouldWait": False, "queuePosition": 1}
    api.answers["/api/jobs"] = {**dry, "training": PREDICTION}
    checked = tidal("jobs", "submit", "lm-training", "--dry-run")
    assert json.loads(checked.stdout)["training"]["parameters"] == 1_234_567
    assert "1,234,567 parameters" in checked.stderr


def test_a_job_shows_measured_and_predicted_values(api: Api, tidal: Callable[..., Result]) -> None:
    measured = {
        "machine": "abc",
        "shape": "s",
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
        "steps": 5,
        "tokens": 4096,
        "seconds": 100.0,
        "trainingSeconds": 80.0,
        "memoryBytes": 1_900_000_000,
    }
    api.answers["/api/jobs/job_1"] = documents.job(prediction=PREDICTION, measurement=measured)
    api.answers["/api/jobs/job_1/events"] = {"events": []}
    shown = tidal("jobs", "show", "job_1").stdout
    assert "duration 100 s (predicted 90 s)" in shown
    assert "peak memory 1.90 GB (predicted 2.00 GB)" in shown
