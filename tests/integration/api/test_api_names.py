"""An invalid name, id or number is a client error (4xx) in every operation, never a server error."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.integration.api.conftest import Api

LONG = ("n" * 256, "é" * 128, "😀" * 64, "x/" + "n" * 256, "a/" * 250 + "b", "n" * 4000)
"""Names that are too long for a file name in UTF-8, although most have a permitted number of characters."""
NASTY = (*LONG, "\0", "a\0b", "..", "%", "~nobody/x", "a\nb", "\x7f", " ")


def sent(api: Api, path: str, body: Any, method: str = "POST") -> httpx.Response:
    """Send a JSON body in which characters that cannot be encoded are escaped."""
    return api.admin.request(
        method, path, content=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=20
    )


def refused(reply: httpx.Response) -> dict[str, Any]:
    assert 400 <= reply.status_code < 500, (reply.request.url, reply.request.content[:200], reply.text[:500])
    return dict(reply.json())


@pytest.fixture
def experiment(api: Api) -> str:
    """Return an experiment that has a folder, because only then the api looks for checkpoint names in it."""
    found = str(api.submit()["experimentId"])
    api.experiment_folder(found)
    return found


def test_invalid_names_in_paths(api: Api, experiment: str) -> None:
    paths = api.http.get("/openapi.json").json()["paths"]
    requests_sent = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            names = [part["name"] for part in operation.get("parameters", []) if part["in"] == "path"]
            for value in NASTY if names else ():
                escaped = quote(value, safe="/" if names[-1] in ("name", "file") else "")
                target = path.replace(f"{{{names[-1]}}}", escaped)
                for name in names[:-1]:
                    target = target.replace(f"{{{name}}}", experiment)
                with api.admin.stream(method, target, json={}, timeout=20) as reply:
                    requests_sent += 1
                    # Clients remove ".." and " " from paths, so these requests may reach an operation that lists
                    # resources.
                    assert reply.status_code < 500, (method, target, reply.read())
                    if value in LONG:
                        assert reply.status_code >= 400, (method, target)
    assert requests_sent > 400


def test_errors_about_names_of_configurations_are_specific(api: Api) -> None:
    for field, kind in (("configPath", "lm-training"), ("rlConfigPath", "ablation")):
        for name in ("n" * 251 + ".yaml", "é" * 128 + ".yaml", "x/" + "n" * 256 + ".yaml"):
            body: dict[str, Any] = {"type": kind, field: name}
            if kind == "lm-training":
                problem = refused(sent(api, "/api/jobs", body))
                assert problem["errors"][0]["location"] == f"body.{field}"
                assert "more than 255 bytes" in problem["detail"]
            refused(sent(api, "/api/jobs", body))
    assert "more than 255 bytes" in refused(api.http.get("/api/configs/" + "n" * 251 + ".yaml"))["detail"]


def test_errors_about_names_of_checkpoints_are_specific(api: Api, experiment: str) -> None:
    reference = f"{experiment}/{'é' * 128}"
    for path, body, location in (
        ("/api/jobs", {"type": "lm-training", "checkpoint": reference}, "body.checkpoint"),
        ("/api/jobs", {"type": "evaluation", "checkpoint": reference}, "body.checkpoint"),
        ("/api/generate", {"prompt": "x", "checkpoint": reference, "gatingMode": "fixed"}, "checkpoint"),
        ("/api/analyze-trajectories", {"prompts": ["x"], "checkpoint": reference, "gatingMode": "fixed"}, "checkpoint"),
    ):
        problem = refused(sent(api, path, body))
        assert location in problem["errors"][0]["location"], problem
        assert "more than 255 bytes" in problem["detail"], problem
    reply = sent(api, "/v1/completions", {"model": reference, "prompt": "x"})
    assert "255 bytes" in refused(reply)["error"]["message"]
    link = api.http.get(f"/api/experiments/{experiment}/checkpoints/{'n' * 256}")
    assert "255 bytes" in refused(link)["detail"]


def test_invalid_names_of_jobs_and_corpora(api: Api, experiment: str) -> None:
    for value in (*NASTY, "\ud800"):
        for field in ("resumeFrom", "checkpoint", "rlCheckpoint", "configPath", "rlConfigPath"):
            refused(sent(api, "/api/jobs", {"type": "ablation", field: value}))
            refused(sent(api, "/api/jobs", {"type": "ablation", field: f"{experiment}/{value}"}))
        refused(sent(api, "/api/jobs", {"type": "lm-training", "tags": [value]}))
        refused(sent(api, "/api/jobs", {"type": value}))
        refused(sent(api, "/api/jobs", {"type": "lm-training", "config": {value: 1}}))
        refused(sent(api, "/api/generate", {"prompt": "x", "checkpoint": value}))
        for path, method, body in (
            (f"/api/experiments/{experiment}", "PATCH", {"name": value}),
            (f"/api/experiments/{experiment}", "PATCH", {"notes": value}),
            ("/api/reports", "POST", {"title": value, "markdown": value}),
            ("/api/reports/generate", "POST", {"pattern": value, "experiments": [value]}),
            ("/api/jobs?dryRun=true", "POST", {"type": "lm-training", "name": value}),
        ):
            assert sent(api, path, body, method).status_code < 500, (path, body)
    for source in ("n" * 300, "n" * 300 + ".txt", f"owner/{'n' * 300}", "a\0b.txt", "x/" + "é" * 200 + ".jsonl"):
        for body in (
            {"type": "lm-training", "config": {"data": {"source": source}}},
            {"type": "lm-training", "config": {"data": {"validation_source": source}}},
            {"type": "dataset", "data": {"source": source}},
        ):
            problem = refused(sent(api, "/api/jobs", body))
            assert "255 bytes" in problem["detail"] or "NUL" in problem["detail"], problem


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_numbers_that_are_not_finite_are_rejected(api: Api, number: str) -> None:
    for config in (
        f'{{"training": {{"learning_rate": {number}}}}}',
        f'{{"training": {{"max_grad_norm": {number}}}}}',
        f'{{"training": {{"max_steps": {number}}}}}',
        f'{{"checkpoint": {{"every_seconds": {number}}}}}',
    ):
        raw = f'{{"type": "lm-training", "config": {config}}}'
        reply = api.admin.post("/api/jobs", content=raw, headers={"Content-Type": "application/json"})
        assert reply.status_code == 422, reply.text
        problem = refused(reply)
        assert "finite" in problem["detail"] and problem["errors"][0]["location"].startswith("body.config.")


def test_a_repeated_key_is_rejected(api: Api) -> None:
    raw = '{"type": "lm-training", "config": {"training": {"max_steps": 5}, "training": {"epochs": 2}}}'
    reply = api.admin.post("/api/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert "the key 'training' is given twice" in refused(reply)["detail"]
    assert api.admin.get("/api/jobs").json()["jobs"] == []


def test_a_configuration_with_a_repeated_key_is_listed_as_invalid_and_refused(api: Api) -> None:
    (api.settings.config_dir / "dup.yaml").write_text("training: {epochs: 1}\ntraining: {epochs: 2}\n")
    listed = {item["name"]: item for item in api.http.get("/api/configs").json()["configs"]}
    assert listed["dup.yaml"]["kind"] == "invalid"
    problem = refused(api.admin.post("/api/jobs", json={"type": "lm-training", "configPath": "dup.yaml"}))
    assert "dup.yaml: not valid YAML: line 2: the key 'training' is already on line 1" in problem["detail"]
    assert str(api.settings.config_dir) not in problem["detail"]
