"""An analysis job computes the right numbers from its samples, is reproducible, and leaves no files after a stop."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from common.artifacts import ArtifactStore
from common.checkpoint import load_model
from common.child.protocol import ChildJob
from common.config import LMConfig
from common.errors import InvalidInputError
from common.generation import DecodingModel, Generation, GenerationSettings, generate
from common.training.hooks import NullHooks, Outcome, StopRequest
from services.trainer import trajectories
from services.trainer.handlers import HANDLERS, JobPaths

MODEL = "tiny/tiny_v1.0.0.safetensors"
PROMPTS = ["the cat", "a dog ran"]


class Hooks(NullHooks):
    """Hooks that record all reports. After more than `stop_after` reports of progress, they request a drain."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.progress: list[tuple[int, int]] = []
        self.artifacts: list[tuple[str, str]] = []

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        self.progress.append((step, total_steps))

    def requested_stop(self) -> StopRequest | None:
        return StopRequest.DRAIN if self.stop_after is not None and len(self.progress) > self.stop_after else None

    def artifact_saved(self, name: str, kind: str) -> None:
        self.artifacts.append((name, kind))


def run(tmp_path: Path, hooks: Hooks, experiment_id: str = "analysed", **analysis: Any) -> tuple[Outcome, Path]:
    asked = {"prompts": PROMPTS, "gating_mode": "random", "max_tokens": 6, "seed": 3, **analysis}
    job = ChildJob(
        job_id="job_1",
        attempt=1,
        job_type="analysis",
        experiment_id=experiment_id,
        payload={"checkpoint": MODEL, "analysis": asked},
    )
    outcome = HANDLERS["analysis"](job, JobPaths(ArtifactStore(tmp_path / "experiments"), tmp_path / "data"), hooks)
    return outcome, tmp_path / "experiments" / experiment_id / "analysis_results.json"


def test_the_numbers_are_those_of_the_texts(finished_model: LMConfig, tmp_path: Path) -> None:
    hooks = Hooks()
    outcome, file = run(tmp_path, hooks, samples_per_prompt=2, bootstrap=True, include_extreme_values=True)
    assert outcome is Outcome.COMPLETED
    assert hooks.artifacts == [("analysis_results.json", "analysis")]
    assert hooks.progress[0] == (0, 60) and hooks.progress[-1] == (60, 60)
    found = json.loads(file.read_text())
    assert (found["kind"], [entry["prompt"] for entry in found["trajectories"]]) == ("batch", PROMPTS)
    means, variances = [], []
    for number, entry in enumerate(found["trajectories"]):
        assert [sample["seed"] for sample in entry["samples"]] == [3 + 2 * number, 4 + 2 * number]
        values = [value for sample in entry["samples"] for value in sample["modulation"]]
        means.append(statistics.fmean(values))
        variances.append(statistics.pvariance(values))
        assert entry["analysis"]["signalStats"]["modulation"]["mean"] == pytest.approx(means[-1])
        for sample in entry["samples"]:
            assert sample["text"] == "".join(sample["tokenTexts"])
    spread = found["batchAnalysis"]["crossPromptVariance"]["modulation"]
    assert spread["betweenPromptVar"] == pytest.approx(statistics.pvariance(means))
    assert spread["withinPromptVar"] == pytest.approx(statistics.fmean(variances))
    assert set(spread["confidenceIntervals"]) == {"betweenPromptVar", "withinPromptVar"}
    for entry in found["sweepAnalysis"]["prompts"]:
        text = entry["prompt"] + entry["texts"]["1.0"]
        assert entry["statistics"]["1.0"]["wordCount"] == len(text.split())
        low, high = (entry["statistics"][key]["charCount"] for key in ("0.0", "1.0"))
        assert entry["deltas"]["charCount"] == high - low
    metadata = json.loads((file.parent / "metadata.json").read_text())
    assert (metadata["type"], metadata["source_checkpoint"]) == ("analysis", MODEL)


def test_texts_are_those_that_generation_gives_for_their_seed(finished_model: LMConfig, tmp_path: Path) -> None:
    _, file = run(tmp_path, Hooks(), samples_per_prompt=2)
    model = DecodingModel(load_model(tmp_path / "experiments" / MODEL))
    for entry in json.loads(file.read_text())["trajectories"]:
        for sample in entry["samples"]:
            alone = generate(model, entry["prompt"], gating_mode="random", max_tokens=6, seed=sample["seed"])
            assert (sample["tokenIds"], sample["text"]) == (alone.token_ids, alone.text)


def test_an_attempt_that_was_interrupted_leaves_nothing_and_the_next_gives_the_same(
    finished_model: LMConfig, tmp_path: Path
) -> None:
    outcome, file = run(tmp_path, hooks := Hooks(stop_after=3))
    assert outcome is Outcome.DRAINED
    assert not file.exists() and hooks.artifacts == []
    results = []
    for experiment_id in ("analysed", "undisturbed"):
        outcome, file = run(tmp_path, Hooks(), experiment_id)
        assert outcome is Outcome.COMPLETED
        results.append({**json.loads(file.read_text()), "elapsedMs": 0})
    assert results[0] == results[1]


def test_a_prompt_without_a_token_is_an_error_that_names_it(
    finished_model: LMConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(model: DecodingModel, prompts: list[str], settings: GenerationSettings, **_: Any) -> list[Generation]:
        return [Generation([1], settings.effective(0, gates_fed=False)) for _ in prompts]

    monkeypatch.setattr(trajectories, "generate_batch", silent)
    with pytest.raises(InvalidInputError, match=r"'the cat'.*no trajectory") as refused:
        run(tmp_path, Hooks())
    assert refused.value.code == "empty_trajectory"
