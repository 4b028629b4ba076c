"""A diverged training can be resumed from any checkpoint, and replies represent values that are not finite."""

from __future__ import annotations

from tests.integration.api.conftest import Api


def test_training_resumes_from_any_checkpoint_with_another_name_and_rate(api: Api) -> None:
    job = api.submit()
    api.admin.post(f"/api/jobs/{job['id']}/cancel")
    experiment = job["experimentId"]
    for name in ("step-000000005", "step-000000010"):
        folder = api.experiment_folder(experiment) / "checkpoints" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (api.experiment_folder(experiment) / "tiny_v1.0.0.safetensors").write_bytes(b"weights")
    changes = {"model": {"name": "second-try"}, "training": {"learning_rate": 1e-4}}
    for given, start in (
        (f"{experiment}/checkpoints/step-000000005", "step-000000005"),
        (f"experiments/{experiment}/checkpoints/step-000000005", "step-000000005"),
        (f"{experiment}/latest", "step-000000010"),
    ):
        body = {"type": "lm-training", "resumeFrom": given, "config": changes}
        reply = api.admin.post("/api/jobs", json=body)
        assert reply.status_code == 201, reply.text
        found = reply.json()
        reference = f"{experiment}/checkpoints/{start}"
        assert (found["parentId"], found["checkpointRef"]) == (job["id"], reference)
        assert found["payload"]["initial_checkpoint"] == reference
        assert found["payload"]["config"]["model"]["name"] == "second-try"
        assert found["payload"]["config"]["training"]["learning_rate"] == 1e-4
    for given, status in (
        (f"{experiment}/checkpoints/step-000000006", 422),
        (f"{experiment}/final", 422),
        ("no-such-experiment/checkpoints/step-1", 422),
    ):
        reply = api.admin.post("/api/jobs", json={"type": "lm-training", "resumeFrom": given})
        assert (reply.status_code, reply.json()["errors"][0]["location"]) == (status, "body.resumeFrom"), reply.text
    wrong = {"type": "rl-training", "resumeFrom": f"{experiment}/checkpoints/step-000000005"}
    assert api.admin.post("/api/jobs", json=wrong).status_code == 422


def test_nan_from_older_versions_is_returned_as_null_and_diverged(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    folder = api.experiment_folder(experiment)
    (folder / "evaluation_results").mkdir()
    (folder / "evaluation_results/evaluation_results.json").write_text(
        '{"validation_loss": NaN, "perplexity": Infinity}'
    )
    (folder / "metrics").mkdir()
    points = [(1, "10.5"), (2, "null"), (3, "null")]
    line = '{"step":%d,"time":"2026-09-01T12:00:00.000Z","attempt":1,"values":{"Losses/Total":%s}}\n'
    (folder / "metrics/metrics-1-1.jsonl").write_text("".join(line % point for point in points))
    result = api.http.get(f"/api/experiments/{experiment}/evaluation")
    assert result.json()["result"] == {"validation_loss": None, "perplexity": None}
    metrics = api.http.get(f"/api/experiments/{experiment}/metrics", params={"mode": "historical"}).json()
    assert metrics["diverged"] == {"Losses/Total": 2}
    assert metrics["series"]["Losses/Total"] == [{"step": 1, "value": 10.5}]
    body = {"pattern": "experiment-overview", "experimentId": experiment}
    report = api.admin.post("/api/reports/generate", json=body)
    assert "The training diverged at step 2" in report.json()["markdown"]
    exported = api.http.get(f"/api/reports/{report.json()['id']}/export", params={"format": "html"})
    assert "diverged: Losses/Total is not finite from step 2 on." in exported.text
