"""Jobs over HTTP: submission, idempotency keys, lists, signals and logs."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from common.config import load_lm_config
from common.db import Job
from common.jobs.queue import claim_job, fail_job, transition
from common.jobs.retry import Fault
from tests.integration.api.conftest import TINY_CONFIG, Api, events_of
from tidal_client.vocabulary import JobStatus


def bring_to_running(api: Api, job_id: str) -> int:
    """Claim the next job, which must be `job_id`, set it to running as a worker does, and return the attempt
    number."""
    with api.context.sessions.begin() as session:
        job = claim_job(session, "training", "worker-1", api.settings)
        assert job is not None and job.id == job_id
        transition(session, job_id, job.attempt, JobStatus.STARTING, event="starting")
        transition(session, job_id, job.attempt, JobStatus.RUNNING, event="running")
        return job.attempt


def test_a_submission_is_a_pending_job_with_its_experiment(api: Api) -> None:
    reply = api.admin.post(
        "/api/jobs",
        json={"type": "lm-training", "config": TINY_CONFIG, "name": "first", "tags": ["a", "b", "a"], "priority": 5},
    )
    assert reply.status_code == 201
    job = reply.json()
    assert reply.headers["location"] == f"/api/jobs/{job['id']}"
    assert (job["status"], job["desiredState"], job["attempt"]) == ("pending", "run", 0)
    assert (job["name"], job["tags"], job["priority"], job["queuePosition"]) == ("first", ["a", "b"], 5, 1)
    assert job["signals"] == ["stop"]
    assert job["createdAt"].endswith("Z")
    assert api.http.get(f"/api/jobs/{job['id']}").json() == job
    experiment = api.http.get(f"/api/experiments/{job['experimentId']}").json()
    assert (experiment["jobId"], experiment["status"], experiment["type"]) == (job["id"], "pending", "lm")
    [event] = api.http.get(f"/api/jobs/{job['id']}/events").json()["events"]
    assert (event["event"], event["toStatus"], event["actor"]) == ("submitted", "pending", "api")


def test_the_payload_is_file_and_overrides_with_every_default(api: Api) -> None:
    job = api.submit(configPath="base_config.yaml", config={"training": {"learning_rate": 0.5}})
    path = api.settings.config_dir / "base_config.yaml"
    expected = load_lm_config(path, {"training": {"learning_rate": 0.5}}).model_dump(mode="json")
    assert job["payload"]["config"] == expected
    assert expected["training"]["max_steps"] == 7


@pytest.mark.parametrize("path", ["base_config.yaml", "configs/base_config.yaml", "./base_config.yaml"])
def test_a_configuration_is_found_with_and_without_its_folder(api: Api, path: str) -> None:
    assert api.submit(configPath=path)["payload"]["config"]["training"]["max_steps"] == 7


@pytest.mark.parametrize(
    "path",
    [
        "../secret.yaml",
        "configs/../../secret.yaml",
        "/etc/passwd",
        "/etc/hostname.yaml",
        "..\\secret.yaml",
        "base_config.yaml\u0000.yaml",
        "link.yaml",
        "folder.yaml/../../secret.yaml",
    ],
)
def test_a_configuration_outside_the_folder_is_refused(api: Api, path: str) -> None:
    (api.settings.config_dir / "link.yaml").symlink_to(api.settings.config_dir.parent / "secret.yaml")
    reply = api.admin.post("/api/jobs", json={"type": "lm-training", "configPath": path})
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["location"] == "body.configPath"
    assert api.http.get(f"/api/configs/{path.replace(chr(0), '%00')}").status_code in (404, 422)


def test_a_dry_run_predicts_and_writes_nothing(api: Api) -> None:
    body = {"type": "lm-training", "config": TINY_CONFIG}
    free = api.admin.post("/api/jobs?dryRun=true", json=body)
    assert free.status_code == 200
    assert (free.json()["wouldWait"], free.json()["queuePosition"]) == (False, 1)
    assert api.http.get("/api/jobs").json()["jobs"] == []
    api.submit()
    busy = api.admin.post("/api/jobs?dryRun=true", json=body).json()
    assert (busy["wouldWait"], busy["queuePosition"]) == (True, 2)
    assert api.admin.post("/api/jobs?dryRun=true", json={**body, "config": {"modell": {}}}).status_code == 422


def test_a_depth_is_resolved_when_a_job_is_submitted(api: Api) -> None:
    """The stored configuration has the values that follow, and a resumed job cannot change them."""
    spelled_out = {"model": {"depth": 2}, "training": {"max_steps": 7}}
    number = api.submit(configPath="base_config.yaml", config=spelled_out)["payload"]["config"]
    assert (number["model"]["d_model"], number["training"]["effective_batch_size"]) == (128, 16)
    text = {"source": "builtin:stories"}
    automatic = {"model": {"depth": "auto"}, "data": text}
    stored = api.submit(config=automatic)["payload"]["config"]["model"]
    assert (stored["depth"], stored["d_model"], stored["num_layers"]) == (6, 384, 6)
    preset = api.settings.config_dir / "automatic.yaml"
    preset.write_text("model: {depth: auto, num_heads: 4}\n")
    shown = api.http.get("/api/configs/automatic.yaml").json()["config"]["model"]
    assert (shown["depth"], shown["d_model"], shown["num_heads"], shown["dropout"]) == ("auto", None, 4, None)
    unknown = {**automatic, "data": {"source": "someone/unknown"}}
    refused = api.admin.post("/api/jobs?dryRun=true", json={"type": "lm-training", "config": unknown})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["location"] == "body.config.model.depth"
    dry = api.admin.post("/api/jobs?dryRun=true", json={"type": "lm-training", "config": automatic}).json()
    assert "model.depth is 6: d_model 384" in " ".join(dry["training"]["notes"])


def test_a_job_over_the_limit_waits_or_is_refused(api: Api) -> None:
    first = api.submit()
    assert api.submit()["queuePosition"] == 2
    refused = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG, "queue": False})
    assert (refused.status_code, refused.json()["code"]) == (409, "concurrency_limit")
    assert len(api.http.get("/api/jobs").json()["jobs"]) == 2
    assert api.http.get(f"/api/jobs/{first['id']}").json()["queuePosition"] == 1


def test_a_repeated_idempotency_key_returns_the_same_job(api: Api) -> None:
    body = {"type": "lm-training", "config": TINY_CONFIG}
    key = {"Idempotency-Key": "k-1"}
    first = api.admin.post("/api/jobs", json=body, headers=key)
    shuffled = json.dumps(dict(reversed(body.items())), indent=2)
    again = api.admin.post("/api/jobs", content=shuffled, headers={**key, "Content-Type": "application/json"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = api.admin.post("/api/jobs", json={**body, "priority": 1}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(api.http.get("/api/jobs").json()["jobs"]) == 1


def test_a_repeated_request_returns_its_job_even_if_its_files_are_missing(api: Api) -> None:
    (api.experiment_folder("exp-1") / "model.safetensors").write_bytes(b"x")
    body = {"type": "evaluation", "checkpoint": "exp-1/final"}
    first = api.admin.post("/api/jobs", json=body, headers={"Idempotency-Key": "k-1"})
    (api.experiment_folder("exp-1") / "model.safetensors").unlink()
    again = api.admin.post("/api/jobs", json=body, headers={"Idempotency-Key": "k-1"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert api.admin.post("/api/jobs", json=body, headers={"Idempotency-Key": "k-2"}).status_code == 422


def test_one_key_from_many_concurrent_clients_creates_one_job(api: Api) -> None:
    body = {"type": "lm-training", "config": TINY_CONFIG}

    def send(_: int) -> str:
        reply = api.admin.post("/api/jobs", json=body, headers={"Idempotency-Key": "same"})
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(send, range(16)))) == 1
    assert len(api.http.get("/api/jobs").json()["jobs"]) == 1


def test_a_submission_is_published_without_waiting_for_the_relay(api: Api) -> None:
    job = api.submit()
    with events_of(api.http, "/api/jobs/stream", since="0") as events:
        [update] = events.take(1)
    assert (update.name, update.data["id"], update.data["status"]) == ("job-update", job["id"], "pending")


def test_pages_contain_every_job_once_while_new_ones_arrive(api: Api) -> None:
    made = [api.submit(name=f"job {n}")["id"] for n in range(7)]
    found: list[str] = []
    cursor = None
    while True:
        page = api.http.get("/api/jobs", params={"limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        found += [job["id"] for job in page["jobs"]]
        cursor = page["nextCursor"]
        api.submit(name="late")
        if cursor is None:
            break
    assert found == made[::-1]


def test_lists_can_be_filtered(api: Api) -> None:
    one = api.submit(tags=["red"])
    two = api.submit(tags=["blue"])
    api.admin.post(f"/api/jobs/{two['id']}/cancel")

    def ids(**query: Any) -> list[str]:
        return [job["id"] for job in api.http.get("/api/jobs", params=query).json()["jobs"]]

    assert ids(tag="red") == [one["id"]]
    assert ids(status="cancelled") == [two["id"]]
    assert ids(status=["cancelled", "pending"]) == [two["id"], one["id"]]
    assert ids(type="rl-training") == []
    assert ids(experimentId=two["experimentId"]) == [two["id"]]


def test_active_jobs_are_those_that_a_worker_holds(api: Api) -> None:
    job = api.submit()
    api.submit()
    assert api.http.get("/api/jobs/active").json()["jobs"] == []
    bring_to_running(api, job["id"])
    [active] = api.http.get("/api/jobs/active").json()["jobs"]
    assert (active["id"], active["status"], active["worker"]) == (job["id"], "running", "worker-1")


@pytest.mark.parametrize("signal", ["pause", "resume", "complete"])
def test_a_signal_that_the_status_does_not_accept_is_a_conflict(api: Api, signal: str) -> None:
    job = api.submit()
    reply = api.admin.post(f"/api/jobs/{job['id']}/signal", json={"signal": signal})
    assert reply.status_code == 409
    assert reply.json()["currentStatus"] == "pending"
    assert api.http.get(f"/api/jobs/{job['id']}").json() == job


def test_a_stop_request_for_a_running_job_is_stored(api: Api) -> None:
    job = api.submit()
    bring_to_running(api, job["id"])
    reply = api.admin.post(f"/api/jobs/{job['id']}/signal", json={"signal": "complete"})
    assert (reply.status_code, reply.json()["status"], reply.json()["desiredState"]) == (200, "running", "complete")
    assert "Asked to complete" in reply.json()["whatNext"]
    assert api.http.get(f"/api/jobs/{job['id']}").json()["whatNext"].startswith("Asked to complete")
    milder = api.admin.post(f"/api/jobs/{job['id']}/signal", json={"signal": "pause"})
    assert (milder.status_code, milder.json()["currentStatus"]) == (409, "running")


def test_cancelling_a_pending_job_ends_it_at_once_and_only_once(api: Api) -> None:
    job = api.submit()
    cancelled = api.admin.post(f"/api/jobs/{job['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = api.admin.post(f"/api/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["currentStatus"]) == (409, "cancelled")
    late = api.admin.post(f"/api/jobs/{job['id']}/signal", json={"signal": "stop"})
    assert late.json()["detail"] == f"job {job['id']} is cancelled already; it accepts no signals any more"
    wrong = api.admin.post(f"/api/jobs/{job['id']}/signal", json={"signal": "explode"})
    assert (wrong.status_code, wrong.json()["errors"][0]["location"]) == (422, "body.signal")


def test_a_failed_job_has_its_error(api: Api) -> None:
    job = api.submit()
    attempt = bring_to_running(api, job["id"])
    with api.context.sessions.begin() as session:
        fail_job(session, job["id"], attempt, Fault.USER_ERROR, "no such column: text", settings=api.settings)
    shown = api.http.get(f"/api/jobs/{job['id']}").json()
    assert (shown["status"], shown["error"]) == ("failed", {"code": "user_error", "message": "no such column: text"})


def test_logs_are_read_by_cursor_across_attempts(api: Api) -> None:
    job = api.submit()
    folder = api.experiment_folder(job["experimentId"]) / "logs"
    folder.mkdir()
    (folder / "1.log").write_text("one\ntwo\n")
    (folder / "2.log").write_text("three\nunfinished")
    path = f"/api/jobs/{job['id']}/logs"
    first = api.http.get(path, params={"limit": 2}).json()
    assert [(line["attempt"], line["line"], line["text"]) for line in first["lines"]] == [(1, 1, "one"), (1, 2, "two")]
    second = api.http.get(path, params={"cursor": first["nextCursor"]}).json()
    assert [(line["attempt"], line["line"], line["text"]) for line in second["lines"]] == [(2, 1, "three")]
    with (folder / "2.log").open("a") as file:
        file.write(" no more\n")
    third = api.http.get(path, params={"cursor": second["nextCursor"]}).json()
    assert [(line["line"], line["text"]) for line in third["lines"]] == [(2, "unfinished no more")]
    assert api.http.get(path, params={"cursor": "1-x-2"}).status_code == 422
    complete = api.http.get(f"{path}/download")
    assert complete.text == "==== attempt 1 ====\none\ntwo\n==== attempt 2 ====\nthree\nunfinished no more\n"
    assert complete.headers["content-type"] == "text/plain; charset=utf-8"
    assert complete.headers["content-disposition"] == f'attachment; filename="{job["id"]}.log"'
    assert api.http.get("/api/jobs/job_nosuch/logs/download").status_code == 404


def test_resuming_keeps_the_configuration_and_names_the_parent(api: Api) -> None:
    job = api.submit()
    body = {"type": "lm-training", "resumeFrom": job["id"], "config": {"training": {"max_steps": 99}}}
    live = api.admin.post("/api/jobs", json=body)
    assert (live.status_code, live.json()["code"]) == (409, "job_is_live")
    api.admin.post(f"/api/jobs/{job['id']}/cancel")
    bare = api.admin.post("/api/jobs", json=body)
    assert (bare.status_code, "has no checkpoint to resume from" in bare.json()["detail"]) == (422, True)
    reference = f"{job['experimentId']}/checkpoints/step-000000005"
    with api.context.sessions.begin() as session:
        session.get_one(Job, job["id"]).checkpoint_ref = reference
    resumed = api.admin.post("/api/jobs", json=body)
    assert resumed.status_code == 201, resumed.text
    found = resumed.json()
    assert (found["parentId"], found["checkpointRef"]) == (job["id"], reference)
    assert found["payload"]["initial_checkpoint"] == reference
    assert found["payload"]["config"]["training"]["max_steps"] == 99
    assert found["payload"]["config"]["model"] == job["payload"]["config"]["model"]
    reshaped = api.admin.post("/api/jobs", json={**body, "config": {"model": {"num_layers": 3}}})
    assert (reshaped.status_code, reshaped.json()["errors"][0]["location"]) == (422, "body.config.model")
