"""Experiments over HTTP: metrics, results, checkpoints and their download."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from common.metrics import MetricsWriter
from tests.integration.api.conftest import Api, RunApi
from tidal_client import Client

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def experiment(api: Api) -> str:
    return str(api.submit()["experimentId"])


@pytest.fixture
def folder(api: Api, experiment: str) -> Path:
    return api.experiment_folder(experiment)


def write_metrics(folder: Path, kind: str, points: int, attempt: int = 1) -> None:
    writer = MetricsWriter(folder, None, folder.name, "job_x", attempt)
    for step in range(1, points + 1):
        writer.add(kind, step, {"loss": math.sin(step / 50), "rate": 1.0 / step})
    writer.close()


def test_few_metrics_are_returned_unchanged(api: Api, experiment: str, folder: Path) -> None:
    write_metrics(folder, "metrics", 20)
    reply = api.http.get(f"/api/experiments/{experiment}/metrics").json()
    assert reply["series"]["loss"] == [{"step": n, "value": math.sin(n / 50)} for n in range(1, 21)]
    assert (reply["keys"], reply["availableKeys"], reply["totalPoints"]) == (["loss", "rate"], ["loss", "rate"], 20)
    assert (reply["last"]["step"], reply["last"]["attempt"]) == (20, 1)


def test_downsampled_metrics_keep_first_and_last_point(api: Api, experiment: str, folder: Path) -> None:
    write_metrics(folder, "metrics", 3000)
    complete = api.http.get(f"/api/experiments/{experiment}/metrics?mode=historical&maxPoints=100&keys=loss").json()
    steps = [point["step"] for point in complete["series"]["loss"]]
    assert (len(steps), steps[0], steps[-1]) == (100, 1, 3000)
    assert steps == sorted(set(steps)) and list(complete["series"]) == ["loss"]
    recent = api.http.get(f"/api/experiments/{experiment}/metrics?window=10").json()
    assert [point["step"] for point in recent["series"]["loss"]] == list(range(2991, 3001))


def test_a_range_of_steps_shows_every_point_that_fits(api: Api, experiment: str, folder: Path) -> None:
    write_metrics(folder, "metrics", 3000)
    path = f"/api/experiments/{experiment}/metrics?mode=historical&maxPoints=100"
    part = api.http.get(f"{path}&fromStep=1201&toStep=1290").json()
    assert part["series"]["loss"] == [{"step": n, "value": math.sin(n / 50)} for n in range(1201, 1291)]
    assert (part["totalPoints"], part["last"]["step"]) == (90, 1290)
    wide = [p["step"] for p in api.http.get(f"{path}&fromStep=1001&toStep=2000").json()["series"]["rate"]]
    assert (len(wide), wide[0], wide[-1]) == (100, 1001, 2000)
    assert api.http.get(f"{path}&fromStep=4000").json()["series"] == {"loss": [], "rate": []}
    wrong = api.http.get(f"{path}&fromStep=20&toStep=10")
    assert (wrong.status_code, wrong.json()["errors"][0]["location"]) == (422, "query.fromStep")


def test_controller_metrics_have_their_own_endpoint(api: Api, experiment: str, folder: Path) -> None:
    write_metrics(folder, "rl-metrics", 5)
    assert api.http.get(f"/api/experiments/{experiment}/metrics").json()["totalPoints"] == 0
    assert api.http.get(f"/api/experiments/{experiment}/rl-metrics").json()["totalPoints"] == 5
    detail = api.http.get(f"/api/experiments/{experiment}").json()
    assert (detail["metricNames"], detail["rlMetricNames"]) == ([], ["loss", "rate"])
    assert detail["sizeBytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > 0


def test_results_are_available_after_they_were_written(api: Api, experiment: str, folder: Path) -> None:
    base = f"/api/experiments/{experiment}"
    evaluation = {"perplexity": 12.5, "samples": [{"prompt": "Once", "generated": "Once upon"}]}
    names = ("evaluation", "headroom", "ablation", "samples")
    assert [api.http.get(f"{base}/{name}").status_code for name in names] == [404] * 4
    (folder / "evaluation_results").mkdir()
    (folder / "evaluation_results" / "evaluation_results.json").write_text(json.dumps(evaluation))
    (folder / "ablation_results.json").write_text(json.dumps({"learned": {"mean": 1}}))
    assert api.http.get(f"{base}/evaluation").json()["result"] == evaluation
    assert api.http.get(f"{base}/samples").json()["samples"] == evaluation["samples"]
    (folder / "headroom_results.json").write_text(json.dumps({"verdict": "There is headroom."}))
    assert api.http.get(f"{base}/ablation").json()["result"] == {"learned": {"mean": 1}}
    assert api.http.get(f"{base}/headroom").json()["result"] == {"verdict": "There is headroom."}
    assert api.http.get(base).json()["results"] == ["evaluation", "samples", "ablation", "headroom"]
    (folder / "ablation_results.json").write_text("{torn")
    torn = api.http.get(f"{base}/ablation")
    assert (torn.status_code, torn.headers["content-type"]) == (507, "application/problem+json")


def test_samples_over_the_steps_are_a_spread_of_the_complete_rows(api: Api, experiment: str, folder: Path) -> None:
    path = f"/api/experiments/{experiment}/sample-history"
    assert api.http.get(path).status_code == 404
    (folder / "evaluation_results").mkdir()
    rows = [
        {"step": n, "samples": [{"prompt": "Once", "generated": f"é {n}", "tokens": 2}]} for n in range(10, 110, 10)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "evaluation_results/samples.jsonl").write_text(lines + '{"step": 110, "sam')
    assert api.http.get(f"/api/experiments/{experiment}").json()["results"] == ["sample-history"]
    found = api.http.get(path).json()
    assert [row["step"] for row in found["rows"]] == list(range(10, 110, 10)) and found["total"] == 10
    assert found["rows"][0]["samples"] == [{"prompt": "Once", "generated": "é 10"}]
    some = api.http.get(f"{path}?maxRows=4").json()
    assert ([row["step"] for row in some["rows"]], some["total"]) == ([10, 40, 70, 100], 10)
    assert [row["step"] for row in api.http.get(f"{path}?maxRows=1").json()["rows"]] == [100]
    with Client(api.url) as client:
        assert [row.step for row in client.sample_history(experiment, max_rows=2).rows] == [10, 100]
    (folder / "evaluation_results/samples.jsonl").write_text('{"step": "many"}\n')
    assert api.http.get(path).status_code == 507


def test_the_configuration_is_that_of_the_job_until_the_file_exists(api: Api) -> None:
    job = api.submit()
    path = f"/api/experiments/{job['experimentId']}/config"
    assert api.http.get(path).json()["config"] == job["payload"]["config"]
    (api.experiment_folder(job["experimentId"]) / "config.yaml").write_text("model: {d_model: 64}\n")
    assert api.http.get(path).json() == {
        "experimentId": job["experimentId"],
        "config": {"model": {"d_model": 64}},
        "rlConfig": None,
    }


def test_experiments_can_be_searched_and_paged(api: Api) -> None:
    made = [api.submit(name=f"story {n}", tags=[f"t{n}"])["experimentId"] for n in range(3)]

    def ids(**query: Any) -> list[str]:
        return [found["id"] for found in api.http.get("/api/experiments", params=query).json()["experiments"]]

    assert ids() == made[::-1]
    assert ids(search="STORY 1") == [made[1]]
    assert ids(search="100%") == []
    assert ids(tag="t2") == [made[2]]
    assert ids(type="rl") == []
    assert ids(type=["rl", "lm"], tag="t0") == [made[0]]
    first = api.http.get("/api/experiments", params={"limit": 2}).json()
    assert ids(limit=2, cursor=first["nextCursor"]) == [made[0]]


def test_lists_of_experiments_and_tags_omit_dataset_jobs(api: Api) -> None:
    def ids(**query: Any) -> list[str]:
        return [found["id"] for found in api.http.get("/api/experiments", params=query).json()["experiments"]]

    assert api.http.get("/api/experiments/tags").json() == {"tags": []}
    run = api.submit(name="run", tags=["b", "a"])["experimentId"]
    other = api.submit(name="other", tags=["b", "A/1"])["experimentId"]
    body = {"type": "dataset", "data": {"source": "builtin:stories"}, "tags": ["text"]}
    dataset = api.admin.post("/api/jobs", json=body).raise_for_status().json()["experimentId"]
    assert ids() == [other, run]
    assert ids(search=dataset) == []
    assert ids(type="dataset") == [dataset]
    assert ids(type=["dataset", "lm"]) == [dataset, other, run]
    assert api.http.get("/api/experiments/tags").json() == {"tags": ["A/1", "a", "b"]}
    assert api.http.get(f"/api/experiments/{dataset}").json()["type"] == "dataset"


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "transformer-lm_v1.0.0.safetensors").write_bytes(CONTENT)
    (folder / "transformer-lm_v1.0.0.pth").write_bytes(b"pth" + CONTENT)
    (folder / "config.yaml").write_text("secret: 1\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "1.log").write_text("a line\n")
    step = folder / "checkpoints" / "step-000000012"
    step.mkdir(parents=True)
    (step / "weights.safetensors").write_bytes(b"step" + CONTENT)
    (step / "manifest.json").write_text("{}")
    return folder


def test_checkpoints_are_listed_with_reference_and_use(api: Api, experiment: str, files: Path) -> None:
    found = api.http.get(f"/api/experiments/{experiment}/checkpoints").json()["checkpoints"]
    assert {item["reference"] for item in found} == {
        f"{experiment}/transformer-lm_v1.0.0.safetensors",
        f"{experiment}/transformer-lm_v1.0.0.pth",
        f"{experiment}/checkpoints/step-000000012",
    }
    assert all(item["usableAsBase"] and not item["usableAsPolicy"] for item in found)
    assert next(item for item in found if item["kind"] == "training")["step"] == 12
    [group] = api.http.get("/api/checkpoints").json()["experiments"]
    assert (group["experimentId"], len(group["checkpoints"])) == (experiment, 3)
    assert all(api.http.get(item["download"]).status_code == 200 for item in found)


def test_download_links_contain_the_prefix_of_a_proxy(serve: RunApi) -> None:
    with serve(root_path="/tidal/") as api:
        experiment_id = str(api.submit()["experimentId"])
        (api.experiment_folder(experiment_id) / "model.safetensors").write_bytes(CONTENT)
        expected = f"/tidal/api/experiments/{experiment_id}/checkpoints/model.safetensors"
        [listed] = api.http.get(f"/api/experiments/{experiment_id}/checkpoints").json()["checkpoints"]
        [group] = api.http.get("/api/checkpoints").json()["experiments"]
        assert [listed["download"], group["checkpoints"][0]["download"]] == [expected] * 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer-lm_v1.0.0.safetensors", CONTENT),
        ("transformer-lm_v1.0.0.safetensors?format=pth", b"pth" + CONTENT),
        ("final", CONTENT),
        ("final?format=pth", b"pth" + CONTENT),
        ("checkpoints/step-000000012", b"step" + CONTENT),
        ("checkpoints/step-000000012?format=safetensors", b"step" + CONTENT),
    ],
)
def test_a_checkpoint_is_downloaded_in_the_requested_format(
    api: Api, experiment: str, files: Path, name: str, expected: bytes
) -> None:
    reply = api.http.get(f"/api/experiments/{experiment}/checkpoints/{name}")
    assert (reply.status_code, reply.content) == (200, expected)
    assert reply.headers["content-disposition"].startswith("attachment")


def test_a_missing_format_is_not_converted(api: Api, experiment: str, files: Path) -> None:
    (files / "transformer-lm_v1.0.0.pth").unlink()
    for name in ("final", "checkpoints/step-000000012"):
        reply = api.http.get(f"/api/experiments/{experiment}/checkpoints/{name}?format=pth")
        assert (reply.status_code, reply.json()["code"]) == (404, "format_not_available")


def test_an_interrupted_download_can_continue(api: Api, experiment: str, files: Path) -> None:
    path = f"/api/experiments/{experiment}/checkpoints/final"
    part = api.http.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, CONTENT[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(CONTENT)}"
    beyond = api.http.get(path, headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.headers["content-type"]) == (416, "application/problem+json")
    assert beyond.headers["content-range"] == f"bytes */{len(CONTENT)}"
    strange = api.http.get(path, headers={"Range": "bytes=zero"})
    assert (strange.status_code, strange.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "logs/1.log",
        "../secret.yaml",
        "..%2Fsecret.yaml",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2Fetc%2Fpasswd",
        "checkpoints/../config.yaml",
        "checkpoints%2F..%2Fconfig.yaml",
        "checkpoints/step-000000012/../../config.yaml",
        "link.safetensors",
        "%00",
        "..%5Csecret",
        "checkpoints",
    ],
)
def test_only_checkpoints_can_be_downloaded(api: Api, experiment: str, files: Path, name: str) -> None:
    (files / "link.safetensors").symlink_to("/etc/passwd")
    host = api.http.base_url
    # Send the path without normalisation, which httpx would apply.
    request = api.http.build_request("GET", f"{host}/")
    request.url = request.url.copy_with(raw_path=f"/api/experiments/{experiment}/checkpoints/{name}".encode())
    reply = api.http.send(request)
    assert reply.status_code in (404, 422), reply.text
    assert not any(content in reply.text for content in ("root:x", "max_steps", "secret: 1", "a line"))


@pytest.mark.parametrize(
    "reference",
    ["../secret/x", "/etc/passwd", "{id}/config.yaml", "{id}/../x", "{id}/logs/1.log", "{id}/link.safetensors", "{id}"],
)
def test_a_job_cannot_name_a_file_that_is_not_a_checkpoint(
    api: Api, experiment: str, files: Path, reference: str
) -> None:
    (files / "link.safetensors").symlink_to("/etc/passwd")
    body = {"type": "evaluation", "checkpoint": reference.format(id=experiment)}
    reply = api.admin.post("/api/jobs", json=body)
    assert (reply.status_code, reply.json()["errors"][0]["location"]) == (422, "body.checkpoint")


def test_controller_training_inherits_the_data_of_its_language_model(api: Api, experiment: str, files: Path) -> None:
    (files / "config.yaml").write_text("data: {source: 'builtin:stories', max_documents: 123}\n")
    body = {"type": "rl-training", "checkpoint": f"experiments/{experiment}/final", "config": {"seed": 9}}
    job = api.admin.post("/api/jobs", json=body).json()
    assert job["payload"]["checkpoint"] == f"{experiment}/transformer-lm_v1.0.0.safetensors"
    assert (job["payload"]["config"]["seed"], job["payload"]["config"]["ppo"]["total_steps"]) == (9, 4096)
    assert job["payload"]["data"]["max_documents"] == 123
    headroom = api.admin.post("/api/jobs", json={**body, "type": "headroom"}).json()
    assert headroom["payload"]["config"]["headroom"]["documents"] == 100
    assert headroom["payload"]["data"] == job["payload"]["data"]
    other = api.admin.post("/api/jobs", json={**body, "data": {"max_documents": 5}}).json()
    assert (other["payload"]["data"]["source"], other["payload"]["data"]["max_documents"]) == ("builtin:stories", 5)
    controller = api.http.get(f"/api/experiments/{job['experimentId']}").json()
    assert (controller["type"], controller["sourceExperimentId"]) == ("rl", experiment)


def test_a_controller_cannot_replace_a_language_model_or_vice_versa(api: Api, experiment: str, files: Path) -> None:
    (files / "rl_checkpoint_final.pth").write_bytes(b"x")
    model, policy = f"{experiment}/transformer-lm_v1.0.0.pth", f"{experiment}/rl_checkpoint_final.pth"
    wrong = api.admin.post("/api/jobs", json={"type": "rl-training", "checkpoint": policy})
    assert "is a controller" in wrong.json()["detail"]
    body = {"type": "ablation", "checkpoint": model, "rlCheckpoint": model}
    assert "is a language model" in api.admin.post("/api/jobs", json=body).json()["detail"]
    job = api.admin.post("/api/jobs", json={**body, "rlCheckpoint": policy})
    assert (job.status_code, job.json()["payload"]["rl_checkpoint"]) == (201, policy)


def test_the_configurations_of_the_server_can_be_read(api: Api) -> None:
    (api.settings.config_dir / "demo").mkdir()
    (api.settings.config_dir / "demo" / "broken.yaml").write_text("modell: 1\n")
    found = {item["name"]: item for item in api.http.get("/api/configs").json()["configs"]}
    kinds = {name: item["kind"] for name, item in found.items()}
    assert kinds == {"base_config.yaml": "lm", "rl_config.yaml": "rl", "demo/broken.yaml": "invalid"}
    assert "did you mean 'model'" in found["demo/broken.yaml"]["problem"]
    one = api.http.get("/api/configs/rl_config.yaml").json()
    assert (one["text"], one["config"]["ppo"]["total_steps"]) == ("ppo: {total_steps: 4096}\n", 4096)
