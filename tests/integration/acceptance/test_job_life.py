"""The life of a job in the real system, with all ways in which it can end.

The tests observe the job through the api.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from common.config import EvaluationConfig
from services.local.servers import PostgresServer, ValkeyServer
from tests.integration.acceptance.stack import TINY_LM, Stack, long_job
from tests.integration.databases import Databases, sibling

TERMINAL = {"completed", "failed", "cancelled"}
LIVE = ["pending", "provisioning", "starting", "running"]


@pytest.fixture(scope="module")
def control_plane(
    databases: Databases, postgres: PostgresServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One api and one health process for all tests of this file. The tests do not stop them."""
    name = databases.take()
    try:
        with Stack(sibling(postgres, name), valkey.url, tmp_path_factory.mktemp("job-life")) as running:
            running.start_control_plane()
            yield running
    finally:
        databases.give_back(name)


@pytest.fixture
def stack(control_plane: Stack) -> Iterator[Stack]:
    """A stack that has no workers at the beginning of the test, and no jobs that a worker could claim."""
    yield control_plane
    for job in control_plane.http.get("/api/jobs").raise_for_status().json()["jobs"]:
        if job["status"] not in TERMINAL:  # a job has not ended only if the test has failed
            control_plane.http.post(f"/api/jobs/{job['id']}/cancel")
    killed = control_plane.end(*set(control_plane.processes) - {"api", "health"})
    assert not killed, f"{killed} did not stop within 30 s of SIGTERM; see {control_plane.folder}"


def test_submitted_job_completes_with_model_evaluation_and_metrics(stack: Stack) -> None:
    stack.start("worker", "worker")
    job = stack.submit(config=TINY_LM)
    done = stack.wait_status(job["id"], "completed", 90)
    assert stack.statuses(job["id"]) == [*LIVE, "completing", "completed"]
    assert (done["attempt"], done["progress"]["step"]) == (1, 30)
    experiment = job["experimentId"]
    files = {file.name for file in (stack.folder / "experiments" / experiment).iterdir()}
    assert {"transformer-lm_v1.0.0.pth", "transformer-lm_v1.0.0.safetensors", "config.yaml", "metadata.json"} <= files
    evaluation = stack.http.get(f"/api/experiments/{experiment}/evaluation").raise_for_status().json()["result"]
    assert evaluation["perplexity"] > 1
    samples = stack.http.get(f"/api/experiments/{experiment}/samples").raise_for_status().json()["samples"]
    assert [sample["prompt"] for sample in samples] == list(EvaluationConfig().prompts)
    assert all(sample["generated"] for sample in samples)
    series = stack.http.get(f"/api/experiments/{experiment}/metrics").raise_for_status().json()["series"]
    assert [point["step"] for point in series["Losses/Total"]] == list(range(1, 31))


def test_complete_ends_training_early_with_a_final_model(stack: Stack) -> None:
    stack.start("worker", "worker")
    job = stack.submit(config=long_job())
    stack.wait_status(job["id"], "running")
    assert stack.signal(job["id"], "complete").status_code == 200
    stack.wait_status(job["id"], "completed")
    assert stack.statuses(job["id"]) == [*LIVE, "completing", "completed"]
    assert (stack.folder / "experiments" / job["experimentId"] / "transformer-lm_v1.0.0.pth").exists()


def test_stop_writes_a_checkpoint_and_cancels(stack: Stack) -> None:
    stack.start("worker", "worker")
    job = stack.submit(config=long_job())
    stack.wait_status(job["id"], "running")
    assert stack.signal(job["id"], "stop").status_code == 200
    stopped = stack.wait_status(job["id"], "cancelled")
    assert stack.statuses(job["id"]) == [*LIVE, "stopping", "cancelled"]
    assert stopped["checkpointRef"]
    assert stack.signal(job["id"], "resume").status_code == 409


def test_pause_frees_the_slot_and_resume_goes_on_at_the_next_step(stack: Stack) -> None:
    stack.start("worker", "worker")
    job = stack.submit(config=long_job())
    stack.wait_status(job["id"], "running")
    assert stack.signal(job["id"], "pause").status_code == 200
    paused = stack.wait_status(job["id"], "paused")
    other = stack.submit(config=TINY_LM)
    stack.wait_status(other["id"], "completed", 90)
    assert stack.signal(job["id"], "resume").status_code == 200
    stack.wait_status(job["id"], "running")
    resumed = next(e for e in stack.events(job["id"]) if e["toStatus"] == "running" and e["attempt"] == 2)
    assert resumed["attempt"] == paused["attempt"] + 1
    assert stack.signal(job["id"], "stop").status_code == 200
    stack.wait_status(job["id"], "cancelled")
    assert_metrics_without_gap(stack, job)


def test_cancel_while_pending_ends_it_at_once(stack: Stack) -> None:
    job = stack.submit(config=TINY_LM)
    assert stack.http.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
    assert stack.job(job["id"])["status"] == "cancelled"
    assert stack.statuses(job["id"]) == ["pending", "cancelled"]


def test_cancel_while_running_stops_the_trainer(stack: Stack) -> None:
    worker = stack.start("worker", "worker")
    job = stack.submit(config=long_job())
    stack.wait_status(job["id"], "running")
    assert trainers_of(worker.pid)
    assert stack.http.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
    stack.wait_status(job["id"], "cancelled")
    assert stack.statuses(job["id"]) == [*LIVE, "stopping", "cancelled"]
    stack.wait_for("the trainer to end", lambda: not trainers_of(worker.pid), 10)


def test_kill_9_of_the_worker_continues_on_another_from_the_checkpoint(stack: Stack) -> None:
    first = stack.start("first", "worker")
    job = stack.submit(config=long_job())
    stack.wait_for("a checkpoint", lambda: any(event["event"] == "checkpoint" for event in stack.events(job["id"])), 90)
    [trainer] = trainers_of(first.pid)
    stack.start("second", "worker")
    stack.kill("first")
    stack.wait_for("the trainer to die with its worker", lambda: not psutil.pid_exists(trainer), 4)
    stack.wait_for(
        "another attempt to run",
        lambda: any(event["toStatus"] == "running" and event["attempt"] == 2 for event in stack.events(job["id"])),
        60,
    )
    statuses = stack.statuses(job["id"])
    assert statuses == [*LIVE, "stale", "pending", "provisioning", "starting", "running"]
    assert stack.signal(job["id"], "complete").status_code == 200
    stack.wait_status(job["id"], "completed")
    assert_metrics_without_gap(stack, job)
    first_step = first_steps_by_attempt(stack, job)[2]
    checkpoints = [
        event["details"]["step"]
        for event in stack.events(job["id"])
        if event["event"] == "checkpoint" and event["attempt"] == 1
    ]
    assert first_step == max(checkpoints) + 1


def test_sigterm_of_a_worker_hands_the_job_to_another(stack: Stack) -> None:
    first = stack.start("first", "worker")
    job = stack.submit(config=long_job())
    stack.wait_status(job["id"], "running")
    stack.start("second", "worker")
    os.kill(first.pid, signal.SIGTERM)
    stack.wait_for(
        "another attempt to run",
        lambda: any(event["toStatus"] == "running" and event["attempt"] == 2 for event in stack.events(job["id"])),
        60,
    )
    assert stack.statuses(job["id"]) == [*LIVE, "pending", "provisioning", "starting", "running"]
    assert first.wait(30) == 0
    assert stack.signal(job["id"], "stop").status_code == 200
    stack.wait_status(job["id"], "cancelled")


def trainers_of(worker: int) -> list[int]:
    """Return the process ids of the worker's trainers."""
    try:
        children = psutil.Process(worker).children(recursive=True)
        return [child.pid for child in children if "services.trainer" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def first_steps_by_attempt(stack: Stack, job: dict[str, str]) -> dict[int, int]:
    """Return {attempt: first step that it reported}, read from the metrics archive."""
    first: dict[int, int] = {}
    folder = stack.folder / "experiments" / job["experimentId"] / "metrics"
    for segment in sorted(folder.glob("metrics-*.jsonl")):
        for line in segment.read_text().splitlines():
            point = json.loads(line)
            if "Losses/Total" in point.get("values", {}):  # A `rewind` line has no values.
                first[point["attempt"]] = min(point["step"], first.get(point["attempt"], point["step"]))
    return first


def assert_metrics_without_gap(stack: Stack, job: dict[str, str]) -> None:
    """Assert that the metrics of the training have exactly one point per step over all its attempts."""
    reply = stack.http.get(
        f"/api/experiments/{job['experimentId']}/metrics",
        params={"keys": "Losses/Total", "mode": "recent", "window": 5000, "maxPoints": 5000},
    )
    steps = [point["step"] for point in reply.raise_for_status().json()["series"]["Losses/Total"]]
    assert steps == list(range(steps[0], steps[0] + len(steps)))
