"""The trainer process follows the protocol between supervisor and child."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.child.protocol import (
    ArtifactSaved,
    CheckpointSaved,
    Failed,
    Finished,
    HistoryEvent,
    Message,
    Progress,
    Running,
    Start,
    Stop,
)
from common.child.socket import CHILD_FD_VARIABLE, PARENT_PID_VARIABLE
from common.config import LMConfig, RLConfig
from tests.metrics_oracle import read_metrics
from tests.paths import ROOT
from tests.unit.tensorboard_reader import shown

pytestmark = pytest.mark.timeout(300)
Config = Callable[..., LMConfig]
StartChild = Callable[..., Any]
ENDLESS = {"max_steps": None, "epochs": 100_000}


def payload(config: LMConfig) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json")}


def of_kind(messages: list[Message], kind: type[Any]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


def test_a_job_runs_to_its_end_and_reports_everything(
    start_child: StartChild, make_config: Config, tmp_path: Path
) -> None:
    child = start_child(payload(make_config()))
    messages = child.until(Finished)
    assert messages[-1] == Finished(outcome="completed")
    assert child.process.wait(30) == 0
    assert len(of_kind(messages, Running)) == 1
    assert of_kind(messages, Progress)[0] == Progress(step=0, total_steps=6)
    assert [event.name for event in of_kind(messages, HistoryEvent)] == ["corpus", "compute", "measured"]
    saved = of_kind(messages, CheckpointSaved)[-1]
    assert saved.step == 6
    experiment = tmp_path / "experiments/tiny"
    manifest = json.loads((experiment / saved.name / "manifest.json").read_text())
    assert manifest["files"]["weights.safetensors"]["sha256"] == saved.sha256
    for artifact in of_kind(messages, ArtifactSaved):
        assert (experiment / artifact.name).is_file(), artifact.name
    assert {artifact.kind for artifact in of_kind(messages, ArtifactSaved)} == {"model", "evaluation"}
    points = read_metrics(experiment, "metrics")
    assert [point.step for point in points if "Losses/Total" in point.values] == [1, 2, 3, 4, 5, 6]
    logged = shown(experiment / "tensorboard_logs")["Losses/Total"]
    assert logged == [
        (point.step, pytest.approx(point.values["Losses/Total"])) for point in points if "Losses/Total" in point.values
    ]
    assert json.loads((experiment / "metadata.json").read_text())["type"] == "lm"
    assert (experiment / "config.yaml").is_file()


def test_the_next_attempt_resumes_from_the_checkpoint_and_voids_later_points(
    start_child: StartChild, make_config: Config, tmp_path: Path
) -> None:
    first = start_child(payload(make_config(training=ENDLESS)))
    while first.until(Progress)[-1].step < 1:
        pass
    first.channel.send(Stop(request="pause"))
    step = of_kind(first.until(Finished), CheckpointSaved)[-1].step
    second = start_child(payload(make_config(training=ENDLESS)), attempt=2)
    messages = second.until(Progress)
    assert messages[-1].step == step
    assert [event.details["step"] for event in of_kind(messages, HistoryEvent) if event.name == "resumed"] == [step]
    second.channel.send(Stop(request="complete"))
    assert second.until(Finished)[-1].outcome == "completed"
    assert (tmp_path / "experiments/tiny/tiny_v1.0.0.safetensors").is_file()
    lines = (tmp_path / "experiments/tiny/metrics/metrics-2-1.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"rewind": {"attempt": 2, "step": step}}
    logged = shown(tmp_path / "experiments/tiny/tensorboard_logs")
    steps = [logged_step for logged_step, _ in logged.get("Losses/Total", [])]
    assert logged["Losses/Validation"] and steps == list(range(1, len(steps) + 1)) and len(steps) >= step


def test_sigterm_is_a_drain(start_child: StartChild, make_config: Config) -> None:
    child = start_child(payload(make_config(training=ENDLESS)))
    child.until(Progress)
    child.process.terminate()
    assert child.until(Finished)[-1].outcome == "drained"
    assert child.process.wait(30) == 0


def test_an_evaluation_measures_a_finished_model(
    start_child: StartChild, finished_model: LMConfig, tmp_path: Path
) -> None:
    results = tmp_path / "experiments/tiny/evaluation_results/evaluation_results.json"
    expected = json.loads(results.read_text())
    results.unlink()
    values = finished_model.model_dump(mode="json")
    child = start_child(
        {"checkpoint": "tiny/tiny_v1.0.0.safetensors", "data": values["data"], "evaluation": values["evaluation"]},
        job_type="evaluation",
    )
    messages = child.until(Finished)
    assert of_kind(messages, Running)
    found = json.loads(results.read_text())
    assert found["validation_loss"] == pytest.approx(expected["validation_loss"], abs=1e-5)
    assert found["samples"] == expected["samples"]


def test_a_controller_is_trained_and_ablated_and_can_be_ablated_again(
    start_child: StartChild, finished_model: LMConfig, tmp_path: Path
) -> None:
    rl_config = {
        "ppo": {"total_steps": 32, "num_envs": 4, "rollout_steps": 8, "epochs": 1},
        "episode": {"max_length": 6, "prompt_max_tokens": 5, "statistics_documents": 20},
        "ablation": {"prompts": 4, "development_prompts": 2, "bootstrap_resamples": 100},
        "device": "cpu",
        "threads": 1,
    }
    values = RLConfig.model_validate(rl_config).model_dump(mode="json")
    data = finished_model.data.model_dump(mode="json")
    model = "tiny/tiny_v1.0.0.safetensors"
    training = start_child(
        {"config": values, "checkpoint": model, "data": data}, job_type="rl-training", experiment_id="steered"
    )
    messages = training.until(Finished)
    assert messages[-1].outcome == "completed"
    assert {artifact.kind for artifact in of_kind(messages, ArtifactSaved)} >= {"policy", "ablation"}
    experiment = tmp_path / "experiments/steered"
    assert [step for step, _ in shown(experiment / "tensorboard_logs")["step_reward"]] == [
        point.step for point in read_metrics(experiment, "rl-metrics") if "step_reward" in point.values
    ]
    metadata = json.loads((experiment / "metadata.json").read_text())
    assert (metadata["type"], metadata["source_experiment_id"]) == ("rl", "tiny")
    assert (experiment / "base_config.yaml").read_text() == (tmp_path / "experiments/tiny/config.yaml").read_text()
    first = json.loads((experiment / "ablation_results.json").read_text())

    comparison = start_child(
        {"config": values, "checkpoint": model, "rl_checkpoint": "steered/rl_checkpoint_final.pth", "data": data},
        job_type="ablation",
        experiment_id="compared",
    )
    assert comparison.until(Finished)[-1].outcome == "completed"
    second = json.loads((tmp_path / "experiments/compared/ablation_results.json").read_text())
    assert second == first
    metadata = json.loads((tmp_path / "experiments/compared/metadata.json").read_text())
    assert (metadata["type"], metadata["source_checkpoint"]) == ("ablation", model)


def test_the_headroom_of_a_model_is_measured(start_child: StartChild, finished_model: LMConfig, tmp_path: Path) -> None:
    config = {
        "episode": {"max_length": 6, "prompt_max_tokens": 5, "statistics_documents": 20},
        "headroom": {"documents": 4, "positions": 2, "bootstrap_resamples": 100},
        "device": "cpu",
        "threads": 1,
    }
    child = start_child(
        {
            "config": RLConfig.model_validate(config).model_dump(mode="json"),
            "checkpoint": "tiny/tiny_v1.0.0.safetensors",
            "data": finished_model.data.model_dump(mode="json"),
        },
        job_type="headroom",
        experiment_id="room",
    )
    messages = child.until(Finished)
    assert messages[-1].outcome == "completed" and of_kind(messages, Running)
    assert [(saved.name, saved.kind) for saved in of_kind(messages, ArtifactSaved)] == [
        ("headroom_results.json", "headroom")
    ]
    found = json.loads((tmp_path / "experiments/room/headroom_results.json").read_text())
    assert found["conditions"]["contexts"] == 8 and found["verdict"] and found["advice"]


def test_a_missing_corpus_fails_with_a_message_for_the_user(start_child: StartChild, make_config: Config) -> None:
    child = start_child(payload(make_config(data={"source": "nowhere.txt"})))
    failed = child.until(Failed)[-1]
    assert failed.code == "invalid_data"
    assert "nowhere.txt" in failed.message
    assert failed.kind == "user"
    assert child.process.wait(30) == 1


def test_a_job_reads_no_text_outside_the_data_folder(
    start_child: StartChild, make_config: Config, tmp_path: Path
) -> None:
    for name in ("words.txt", "secret.txt"):
        (tmp_path / name).write_text("No job may train on this.\n" * 50)
    outside = str(tmp_path / "secret.txt")
    for source, finding in ((outside, "outside the data folder"), ("secret.txt", "no such corpus")):
        failed = start_child(payload(make_config(data={"source": source}))).until(Failed)[-1]
        assert failed.code == "invalid_data"
        assert finding in failed.message


def test_a_job_type_without_handler_fails(start_child: StartChild) -> None:
    child = start_child({}, job_type="knitting")
    failed = child.until(Failed)[-1]
    assert "knitting" in failed.message
    assert child.process.wait(30) == 1


def test_the_child_exits_at_once_when_the_supervisor_closes_the_socket(
    start_child: StartChild, make_config: Config
) -> None:
    child = start_child(payload(make_config(training=ENDLESS)))
    child.until(Progress)
    child.channel.close()
    assert child.process.wait(2) == 1


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "services.trainer"], pass_fds=[{fd}], stderr=subprocess.DEVNULL,
    env={{**os.environ, "{fd_name}": "{fd}", "{pid_name}": str(os.getpid())}})
print(child.pid, flush=True)
child.wait()
"""


def test_the_child_dies_with_its_parent_although_the_socket_stays_open(
    start_child: StartChild, make_config: Config, tmp_path: Path
) -> None:
    from common.child.protocol import Channel, ChildJob

    channel, child_end = Channel.pair()
    code = PARENT.format(fd=child_end.fileno(), fd_name=CHILD_FD_VARIABLE, pid_name=PARENT_PID_VARIABLE)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, pass_fds=[child_end.fileno()], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    job = ChildJob(
        job_id="job_1",
        attempt=1,
        job_type="lm-training",
        experiment_id="tiny",
        payload=payload(make_config(training=ENDLESS)),
    )
    channel.send(
        Start(job=job, experiments_dir=str(tmp_path / "e"), data_dir=str(tmp_path / "data"), pause_after_seconds=3600)
    )
    message = channel.receive(60)
    while not isinstance(message, Progress):
        assert message is not None and not isinstance(message, Failed), message
        message = channel.receive(60)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ended, alive = psutil.wait_procs([child], timeout=2)
    child_end.close()
    channel.close()
    assert ended
    assert not alive


def test_without_a_supervisor_it_explains_how_to_train() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "services.trainer"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 2
    assert "tidal train" in found.stderr
