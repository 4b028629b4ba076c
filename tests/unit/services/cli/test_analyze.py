"""The requests and the output of `tidal analyze` with a fake api."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from common.errors import InvalidInputError, NotFoundError, TidalError
from services.cli.commands import analyze
from services.cli.main import app
from services.cli.views.job import JobView
from tests.unit import api_documents as documents
from tidal_client import Client, Job

EXPERIMENTS = [
    documents.experiment(id="model"),
    documents.experiment(id="steered", type="rl", sourceExperimentId="model", createdAt="2026-01-31T13:00:00Z"),
]
FIGURES = {"mean": 0.25, "std": 0.125, "min": 0.125, "max": 0.375, "q25": 0.1875, "q50": 0.25, "q75": 0.3125}
TOKENS = [
    {"position": n, "tokenId": n, "tokenText": text, "value": value}
    for n, (text, value) in enumerate([(" ran", 0.125), (" far", 0.375)])
]
TRAJECTORY = {
    "prompt": "Tom",
    "analysis": {
        "signalStats": {"modulation": FIGURES},
        "signalEvolution": {"modulation": [FIGURES] * 4},
        "crossSignalCorrelations": {},
        "phases": [{"signal": "modulation", "windowBoundary": "Q1→Q2", "tStatistic": -4.25}],
        "tokenSignalAlignment": {"modulation": {"highTokens": TOKENS[1:], "lowTokens": TOKENS[:1]}},
    },
    "samples": [
        {
            "seed": 0,
            "text": " ran far",
            "finishReason": "length",
            "tokenIds": [0, 1],
            "tokenTexts": [" ran", " far"],
            "modulation": [0.125, 0.375],
        }
    ],
}
BATCH = {
    "crossPromptVariance": {
        "modulation": {
            "betweenPromptVar": 0.000123,
            "withinPromptVar": 0.0625,
            "confidenceIntervals": {"betweenPromptVar": [0.0001, 0.0002]},
        }
    },
    "strategyCharacterization": {"modulation": {"globalMean": 0.25, "globalStd": 0.5}},
}
COUNTS = {"wordCount": 4, "uniqueWordRatio": 0.5, "charCount": 11}
SWEEP = {
    "prompts": [
        {
            "prompt": "Tom",
            "texts": {"0.0": " a", "0.5": " b", "1.0": " c"},
            "statistics": dict.fromkeys(("0.0", "0.5", "1.0"), COUNTS),
            "deltas": {"wordCount": -2.0, "uniqueWordRatio": 0.25, "charCount": 7.0},
        }
    ],
    "meanDeltas": {},
}


GAIN = {"mean": 0.0125, "std": 0.1, "ci_low": 0.01, "ci_high": 0.015}
HEADROOM = {
    "modulations": [0.0, 0.05],
    "rewards": [0.1, 0.125],
    "best_constant": {"modulation": 0.05, "reward": {**GAIN, "mean": 0.125}},
    "policies": {"entropy_bins": {"reward": {**GAIN, "mean": 0.1375}, "gain": GAIN}},
    "headroom": True,
    "verdict": "There is headroom: entropy bins gains +0.0125.",
    "advice": "Train a controller.",
    "conditions": {"documents": 100, "contexts": 2000, "source": "validation documents of stories"},
}


def result(kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "request": {"checkpoint": "model/final", "rlCheckpoint": "steered/final", "prompts": ["Tom"]},
        "trajectories": [] if kind == "sweep" else [TRAJECTORY],
        "batchAnalysis": BATCH if kind == "batch" else None,
        "sweepAnalysis": SWEEP if kind == "sweep" else None,
        "tokensGenerated": 2,
        "elapsedMs": 10.0,
    }


class Api:
    """A fake api; `sent` contains (method, path, body) of all requests."""

    def __init__(self) -> None:
        self.experiments = EXPERIMENTS
        self.sent: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body: Any = json.loads(request.content) if request.content else None
        path = request.url.path
        self.sent.append((request.method, path, body))
        if path == "/api/experiments":
            wanted = {name: value for name, value in request.url.params.items() if name in ("type", "status")}
            found = [item for item in self.experiments if wanted.items() <= item.items()]
            return httpx.Response(200, json={"experiments": found})
        if path == "/api/experiments/steered":
            return httpx.Response(200, json=EXPERIMENTS[1])
        if path == "/api/analyze-trajectories":
            progress = json.dumps({"texts": 0, "textsTotal": 1, "tokens": 1, "mostTokens": 2})
            done = json.dumps(result(body["kind"]))
            events = f"event: progress\ndata: {progress}\n\nevent: done\ndata: {done}\n\n"
            return httpx.Response(200, headers=documents.EVENTS, content=events)
        if path == "/api/experiments/steered/headroom":
            return httpx.Response(200, json={"experimentId": "steered", "result": HEADROOM})
        if path == "/api/jobs":
            return httpx.Response(201, json=documents.job(type="analysis", experimentId="steered"))
        if request.method == "DELETE":
            return httpx.Response(204)
        if path.endswith("/analyses") and request.method == "GET":
            return httpx.Response(200, json={"analyses": [saved(None)], "nextCursor": None})
        return httpx.Response(200, json=saved(result("batch")))


def saved(its_result: dict[str, Any] | None) -> dict[str, Any]:
    row = {"id": "ana_1", "experimentId": "steered", "kind": "batch", "name": "first", "jobId": None}
    kept = {} if its_result is None else {"result": its_result}
    return {**row, "request": {"prompts": ["Tom"]}, "createdAt": "2026-01-31T12:00:00Z", **kept}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    played = Api()
    monkeypatch.setattr(
        analyze, "connect", lambda url, token: Client("http://tidal", transport=httpx.MockTransport(played))
    )
    return played


def tidal(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["analyze", *arguments])


def test_one_prompt_is_followed_with_the_newest_controller_and_its_model(api: Api) -> None:
    shown = tidal("single", "Tom", "--max-tokens", "2")
    assert shown.exit_code == 0, shown.output
    assert api.sent[-1][2] == {
        "checkpoint": "model/final",
        "rlCheckpoint": "steered/final",
        "prompts": ["Tom"],
        "kind": "single",
        "samplesPerPrompt": 1,
        "maxTokens": 2,
        "gatingMode": "learned",
        "seed": 0,
        "stream": True,
    }
    assert "Tom ran far" in shown.stdout
    assert "Q1→Q2 t = -4.2" in shown.stdout
    assert "Lowest: ' ran'" in shown.stdout and "Highest: ' far'" in shown.stdout
    assert "2 tokens · 200 tokens/s · model/final · steered/final" in shown.stderr


def test_a_batch_is_shown_with_its_intervals_and_kept_with_the_controller(api: Api) -> None:
    shown = tidal("batch", "Tom", "--bootstrap", "--save", "--name", "first")
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert "variance between prompts 0.000123 0.0001 … 0.0002" in words
    assert "variance within prompts 0.0625 (--bootstrap)" in words
    assert "Saved as ana_1" in shown.stderr
    kept = {"name": "first", "result": result("batch")}
    assert api.sent[-1] == ("POST", "/api/experiments/steered/analyses", kept)


def test_a_sweep_needs_no_controller(api: Api) -> None:
    api.experiments = EXPERIMENTS[:1]
    shown = tidal("sweep", "Tom")
    assert shown.exit_code == 0, shown.output
    assert "1 − 0 -2 +0.250 +7" in " ".join(shown.stdout.split())
    sent = {"checkpoint": "model/final", "prompts": ["Tom"], "kind": "sweep", "maxTokens": 50, "seed": 0}
    assert api.sent[-1][2] == {**sent, "stream": True}


def test_json_is_the_reply_of_the_api(api: Api) -> None:
    assert json.loads(tidal("batch", "--json").stdout) == result("batch")


def test_prompts_come_from_the_command_line_and_a_file(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffThe cat\n\nThe\u2028dog  \r\nOne\u0085day".encode())
    assert tidal("batch", "Tom", "--prompts-file", str(file)).exit_code == 0
    assert api.sent[-1][2]["prompts"] == ["Tom", "The cat", "The\u2028dog", "One\u0085day"]
    file.write_text("\n")
    refused = tidal("batch", "--prompts-file", str(file))
    assert isinstance(refused.exception, InvalidInputError) and "the file has no prompts" in refused.exception.message


def test_a_job_is_asked_for_the_same(api: Api) -> None:
    shown = tidal("batch", "Tom", "--gating", "random", "--samples", "50", "--job", "--name", "night")
    assert shown.exit_code == 0, shown.output
    assert "Submitted job_1." in shown.stdout and "tidal jobs watch job_1" in shown.stderr
    config = {"kind": "batch", "prompts": ["Tom"], "samples_per_prompt": 50, "max_tokens": 50, "seed": 0}
    assert api.sent[-1][2] == {
        "type": "analysis",
        "config": {**config, "gating_mode": "random"},
        "checkpoint": "model/final",
        "name": "night",
    }


def test_contradictory_options_are_an_error_before_anything_is_generated(api: Api) -> None:
    for arguments, message in (
        (["batch", "--name", "x"], "only with --save or --job"),
        (["batch", "--gating", "fixed", "--policy", "steered/final"], "only with --gating learned"),
    ):
        refused = tidal(*arguments)
        assert isinstance(refused.exception, InvalidInputError)
        assert message in refused.exception.message
    api.experiments = []
    refused = tidal("single")
    assert isinstance(refused.exception, NotFoundError)
    assert "rl-training" in refused.exception.message and "--gating random" in refused.exception.message
    assert all(path != "/api/analyze-trajectories" for _, path, _ in api.sent)


def test_saved_analyses_are_listed_shown_and_deleted(api: Api) -> None:
    assert "ana_1" in tidal("list", "steered").stdout
    assert "variance between prompts" in tidal("show", "ana_1").stdout
    assert json.loads(tidal("show", "ana_1", "--json").stdout)["result"] == result("batch")
    assert tidal("delete", "ana_1").exit_code == 0
    assert api.sent[-1][:2] == ("DELETE", "/api/analyses/ana_1")


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_headroom_is_measured_by_a_job_and_shown_when_it_has_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    followed: list[Job] = []

    def watch(client: Client, job: Job, *, label: str) -> JobView:
        followed.append(job)
        return JobView(job.model_copy(update={"status": status}))

    monkeypatch.setattr(analyze, "watch", watch)
    shown = tidal("headroom", "--set", "headroom.documents=200")
    submitted = [(path, body) for method, path, body in api.sent if method == "POST"]
    wanted = {"type": "headroom", "config": {"headroom": {"documents": 200}}, "checkpoint": "model/final"}
    assert submitted == [("/api/jobs", wanted)]
    assert [job.id for job in followed] == ["job_1"]
    if status == "failed":
        assert isinstance(shown.exception, TidalError) and "the job job_1 is failed" in shown.exception.message
        return
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert "There is headroom: entropy bins gains +0.0125. Train a controller." in words
    assert "best constant, m = 0.05 0.1250" in words
    assert "entropy bins 0.1375 +0.0125 +0.0100 … +0.0150" in words
    assert "2,000 contexts of 100 validation documents of stories" in words
    assert json.loads(tidal("headroom", "other/final", "--json").stdout) == HEADROOM
    assert api.sent[-2][2]["checkpoint"] == "other/final"
