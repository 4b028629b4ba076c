"""Immediate analyses over HTTP, with completions from the real engine."""

from __future__ import annotations

import base64
import json
import math
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import torch

from common.artifacts import ArtifactStore
from common.checkpoint import save_model
from common.child.protocol import ChildJob
from common.controller import GatingPolicy
from common.data import load_tokenizer
from common.model import ModelConfig, TransformerLM
from common.training.hooks import NullHooks
from services.trainer.handlers import HANDLERS, JobPaths
from tests.integration.api.conftest import Api, Events
from tests.integration.generator.serving import Serving

MODEL, POLICY = "exp-1/model.safetensors", "exp-2/rl_checkpoint_final.pth"
PROMPTS = ["Once upon a time", "The little cat", ""]
LEARNED = {"checkpoint": MODEL, "rlCheckpoint": POLICY, "maxTokens": 9}
RANDOM = {"checkpoint": MODEL, "gatingMode": "random", "maxTokens": 9}


class RealEngine:
    """An engine in the test process. A thread hands requests to the engine, as a Celery worker would."""

    def __init__(self, url: str, experiments: Path) -> None:
        self.ids: list[str] = []
        self._redis = redis.Redis.from_url(url, socket_timeout=10)
        self._serving = Serving(self._redis, experiments, slots=16)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        self._serving.close()
        self._redis.close()

    def _run(self) -> None:
        torch.set_num_threads(1)
        while not self._stop.is_set():
            message = self._redis.brpop(["generate"], timeout=0.2)
            if message:
                body = base64.b64decode(json.loads(message[1])["body"])
                self.ids.append(json.loads(body)[0][0])
                self._serving.handle(self.ids[-1])


@pytest.fixture
def experiments(api: Api) -> Path:
    """Save a model that rarely samples end-of-text, one that always samples it, and a policy."""
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(d_model=24, num_layers=1, num_heads=2, ffn_dim=16, context_length=64))
    end = load_tokenizer().eot_token
    for name, bias in (("model", -30.0), ("silent", 1e4)):
        with torch.no_grad():
            model.output_projection.bias[end] = bias
        save_model(model, api.experiment_folder("exp-1") / f"{name}.safetensors")
    torch.save({"agent_state_dict": GatingPolicy().state_dict()}, api.experiment_folder("exp-2") / POLICY[6:])
    return api.settings.experiments_dir


@pytest.fixture
def engine(redis_url: str, experiments: Path) -> Iterator[RealEngine]:
    engine = RealEngine(redis_url, experiments)
    yield engine
    engine.close()


@pytest.fixture
def files(api: Api) -> None:
    """Create checkpoint files that requests can refer to; no test loads them."""
    for name in (MODEL, POLICY):
        experiment, file = name.split("/")
        (api.experiment_folder(experiment) / file).write_bytes(b"x")


def modulations(trajectory: dict[str, Any]) -> list[float]:
    return [value for sample in trajectory["samples"] for value in sample["modulation"]]


def test_the_statistics_of_a_batch_follow_from_its_modulations(api: Api, engine: RealEngine) -> None:
    reply = api.http.post(
        "/api/analyze-trajectories",
        json={**RANDOM, "prompts": PROMPTS, "samplesPerPrompt": 2, "bootstrap": True, "seed": 5},
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-ratelimit-remaining"] == "4"
    found = reply.json()
    assert (found["kind"], found["tokensGenerated"], found["sweepAnalysis"]) == ("batch", 54, None)
    assert found["request"]["checkpoint"] == MODEL and found["request"]["seed"] == 5
    values = [modulations(trajectory) for trajectory in found["trajectories"]]
    assert [len(ms) for ms in values] == [18, 18, 18]
    for trajectory, ms in zip(found["trajectories"], values, strict=True):
        figures = trajectory["analysis"]["signalStats"]["modulation"]
        assert figures["std"] == pytest.approx(statistics.pstdev(ms))
        windows = [ms[0:5], ms[5:10], ms[10:14], ms[14:18]]
        assert [window["mean"] for window in trajectory["analysis"]["signalEvolution"]["modulation"]] == pytest.approx(
            [statistics.fmean(window) for window in windows]
        )
        changes = {f"Q{n + 1}→Q{n + 2}": welch(windows[n], windows[n + 1]) for n in range(3)}
        changed = {phase["windowBoundary"]: phase["tStatistic"] for phase in trajectory["analysis"]["phases"]}
        means = [statistics.fmean(window) for window in windows]
        large = {f"Q{n + 1}→Q{n + 2}" for n in range(3) if abs(means[n] - means[n + 1]) >= 0.05}
        assert changed == pytest.approx({name: t for name, t in changes.items() if abs(t) > 2 and name in large})
    means = [statistics.fmean(ms) for ms in values]
    spread = found["batchAnalysis"]["crossPromptVariance"]["modulation"]
    strategy = found["batchAnalysis"]["strategyCharacterization"]["modulation"]
    assert spread["betweenPromptVar"] == pytest.approx(statistics.pvariance(means))
    assert spread["withinPromptVar"] == pytest.approx(statistics.fmean(statistics.pvariance(ms) for ms in values))
    assert (strategy["globalMean"], strategy["globalStd"]) == pytest.approx(
        (statistics.fmean(means), statistics.pstdev(means))
    )
    # `high` is at most the largest variance that a bootstrap resample of the three means can have. A resample that
    # contains only the smallest and the largest mean has this variance.
    low, high = spread["confidenceIntervals"]["betweenPromptVar"]
    assert 0 <= low <= spread["betweenPromptVar"] <= high <= (max(means) - min(means)) ** 2 * 2 / 9 + 1e-12


def welch(a: list[float], b: list[float]) -> float:
    error = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(error)


def test_a_job_and_an_immediate_analysis_have_the_same_result(api: Api, engine: RealEngine, tmp_path: Path) -> None:
    asked = {"prompts": PROMPTS[:2], "samplesPerPrompt": 2, "includeExtremeValues": True, "seed": 11}
    reply = api.admin.post("/api/analyze-trajectories", json={**LEARNED, **asked})
    assert reply.status_code == 200, reply.text
    assert reply.json() == {**reply.json(), "kind": "batch", "tokensGenerated": 9 * (4 + 6)}
    analysis = {
        "prompts": PROMPTS[:2],
        "samples_per_prompt": 2,
        "include_extreme_values": True,
        "seed": 11,
        "max_tokens": 9,
    }
    job = ChildJob(
        job_id="job_1",
        attempt=1,
        job_type="analysis",
        experiment_id="exp-3",
        payload={"checkpoint": MODEL, "rl_checkpoint": POLICY, "analysis": analysis},
    )
    store = ArtifactStore(api.settings.experiments_dir)
    HANDLERS["analysis"](job, JobPaths(store, tmp_path), NullHooks())
    made = store.read_json("exp-3", "analysis_results.json")
    assert isinstance(made, dict)
    found = reply.json()
    assert (found["request"], found["sweepAnalysis"]) == (made["request"], made["sweepAnalysis"])
    for here, there in zip(found["trajectories"], made["trajectories"], strict=True):
        for sample, other in zip(here["samples"], there["samples"], strict=True):
            assert sample == {**other, "modulation": pytest.approx(other["modulation"], abs=1e-5)}
        first, second = (trajectory["analysis"]["signalStats"]["modulation"] for trajectory in (here, there))
        assert first == pytest.approx(second, abs=1e-5)


def figures(result: Any) -> Any:
    """Return the result of an analysis without the elapsed time and with rounded numbers, for comparison.

    With another batch size, the numbers may differ in the last bit.
    """
    if isinstance(result, dict):
        return {key: figures(value) for key, value in result.items() if key != "elapsedMs"}
    if isinstance(result, list):
        return [figures(value) for value in result]
    return round(result, 4) if isinstance(result, float) else result


def test_a_sweep_covers_modulations_from_0_to_1(api: Api, engine: RealEngine) -> None:
    reply = api.http.post("/api/analyze-trajectories", json={"checkpoint": MODEL, "prompts": ["Tom"], "kind": "sweep"})
    found = reply.json()
    assert (found["trajectories"], found["batchAnalysis"], found["tokensGenerated"]) == ([], None, 150)
    [row] = found["sweepAnalysis"]["prompts"]
    assert list(row["texts"]) == list(row["statistics"]) == ["0.0", "0.5", "1.0"]
    for key, written in row["texts"].items():
        words = ("Tom" + written).split()
        assert row["statistics"][key] == {
            "wordCount": len(words),
            "uniqueWordRatio": pytest.approx(len(set(words)) / len(words)),
            "charCount": len("Tom" + written),
        }
    for name, delta in row["deltas"].items():
        assert delta == pytest.approx(row["statistics"]["1.0"][name] - row["statistics"]["0.0"][name])
    assert found["sweepAnalysis"]["meanDeltas"] == row["deltas"]


def test_a_stream_sends_progress_and_ends_with_the_result(api: Api, engine: RealEngine) -> None:
    body = {**RANDOM, "prompts": PROMPTS, "samplesPerPrompt": 16}
    with api.http.stream("POST", "/api/analyze-trajectories", json={**body, "stream": True}) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-ratelimit-remaining"] == "4"
        events = list(Events(reply))
    *progress, done = events
    assert {event.name for event in progress} == {"progress"} and done.name == "done"
    tokens = [event.data["tokens"] for event in progress]
    assert tokens == sorted(tokens) and tokens[0] >= 1
    assert {(event.data["textsTotal"], event.data["mostTokens"]) for event in progress} == {(48, 432)}
    complete = api.http.post("/api/analyze-trajectories", json=body).json()
    assert figures(done.data) == figures(complete)


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompts": []}, "body.prompts", "at least 1"),
    ({"prompts": ["a", "a"]}, "body", "repeats prompt 0"),
    ({"prompts": ["a\x00"]}, "body.prompts", "NUL"),
    ({"prompts": ["a", "b"], "kind": "single"}, "body", "kind single takes one prompt"),
    ({"bootstrap": True}, "body", "bootstrap is only for kind batch"),
    ({"kind": "sweep", "samplesPerPrompt": 2}, "body", "one sample per prompt"),
    ({"kind": "sweep", "includeExtremeValues": True}, "body", "extreme values"),
    ({"kind": "sweep", "rlCheckpoint": POLICY}, "body.rlCheckpoint", "leave it out"),
    ({"gatingMode": "learned"}, "body.rlCheckpoint", "needs a controller"),
    ({"gatingMode": "none"}, "body.gatingMode", "random"),
    ({"samplesPerPrompt": 17}, "body.samplesPerPrompt", "16"),
    ({"seed": -1}, "body.seed", "0"),
    ({"checkpoint": POLICY}, "body.checkpoint", "language model"),
    ({"checkpoint": "exp-9/final"}, "body.checkpoint", "exp-9"),
    ({"temperature": 1.0}, "body.temperature", "unknown"),
]


def test_an_invalid_analysis_is_a_problem_that_names_the_field(api: Api, files: None) -> None:
    for changes, location, message in REFUSED:
        reply = api.admin.post("/api/analyze-trajectories", json={**RANDOM, "prompts": ["a"], **changes})
        assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json"), changes
        [finding] = reply.json()["errors"]
        assert finding["location"] == location, changes
        assert message in finding["message"], changes


def test_an_analysis_that_is_too_long_names_the_job_type(api: Api, files: None) -> None:
    body = {**RANDOM, "prompts": ["a", "b"], "maxTokens": 2049}
    refused = api.admin.post("/api/analyze-trajectories", json=body).json()
    assert (refused["status"], refused["code"]) == (422, "analysis_too_long")
    assert "`stream`" in refused["detail"] and "job of type analysis" in refused["detail"]
    longer = {**body, "maxTokens": 2000, "samplesPerPrompt": 6, "stream": True}
    refused = api.admin.post("/api/analyze-trajectories", json=longer).json()
    assert refused["code"] == "analysis_too_long" and "`stream`" not in refused["detail"]


@pytest.mark.parametrize("stream", [False, True])
def test_texts_without_tokens_are_an_error(api: Api, engine: RealEngine, stream: bool) -> None:
    body = {**RANDOM, "checkpoint": "exp-1/silent.safetensors", "prompts": ["Tom"], "stream": stream}
    with api.http.stream("POST", "/api/analyze-trajectories", json=body) as reply:
        error = list(Events(reply))[-1].data if stream else json.loads(reply.read())
    assert (error["code"], error["status"]) == ("empty_trajectory", 422)
    assert "'Tom'" in (error.get("detail") or error.get("message"))


def test_callers_without_a_token_share_the_limit_of_generate(api: Api) -> None:
    body = {"checkpoint": "nowhere/final", "prompts": ["a"], "gatingMode": "random"}
    codes = [api.http.post("/api/analyze-trajectories", json=body).status_code for _ in range(5)]
    assert codes == [422] * 5
    limited = api.http.post("/api/analyze-trajectories", json=body)
    assert (limited.status_code, limited.headers["x-ratelimit-remaining"]) == (429, "0")
    assert int(limited.headers["retry-after"]) >= 1
    assert api.http.post("/api/generate", json={"checkpoint": "nowhere/final"}).status_code == 429
    assert api.admin.post("/api/analyze-trajectories", json=body).status_code == 422
