"""Saved analyses over HTTP, and the submission of analysis jobs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from sqlalchemy import text

from common.jobs.queue import claim_job, register_analysis
from tests.integration.api.analyses import MODEL, POLICY, RESULT
from tests.integration.api.conftest import Api


def test_an_unknown_kind_of_analysis_is_rejected(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    refused = api.admin.post(f"/api/experiments/{experiment}/analyses", json={"result": {**RESULT, "kind": "heatmap"}})
    assert refused.status_code == 422
    expected = {"location": "body.result.kind", "message": "Input should be 'single', 'batch' or 'sweep'"}
    assert refused.json()["errors"] == [expected]


def test_a_saved_analysis_is_returned_unchanged(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    path = f"/api/experiments/{experiment}/analyses"
    saved = api.admin.post(path, json={"name": "first", "result": RESULT})
    assert saved.status_code == 201, saved.text
    assert saved.headers["location"] == f"/api/analyses/{saved.json()['id']}"
    found = api.http.get(saved.headers["location"]).json()
    assert found == saved.json()
    assert (found["result"], found["name"], found["jobId"]) == (RESULT, "first", None)
    [listed] = api.http.get(path).json()["analyses"]
    assert listed == {key: value for key, value in found.items() if key != "result"}


def test_lists_are_paged_and_filtered_and_include_the_analyses_of_jobs(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    path = f"/api/experiments/{experiment}/analyses"
    kinds = ["single", "sweep", "single"]
    ids = [api.admin.post(path, json={"result": {**RESULT, "kind": kind}}).json()["id"] for kind in kinds]
    first = api.http.get(path, params={"limit": 2}).json()
    second = api.http.get(path, params={"limit": 2, "cursor": first["nextCursor"]}).json()
    assert [analysis["id"] for analysis in first["analyses"] + second["analyses"]] == ids[::-1]
    assert second["nextCursor"] is None
    assert [analysis["id"] for analysis in api.http.get(path, params={"kind": "sweep"}).json()["analyses"]] == [ids[1]]
    bad = api.http.get(path, params={"cursor": "nonsense"})
    assert (bad.status_code, bad.json()["errors"][0]["location"]) == (422, "query.cursor")


def analysis_job(api: Api) -> dict[str, Any]:
    """Return a running job with a saved analysis; the analysed model belongs to an experiment in the database."""
    source = api.submit()["experimentId"]
    (api.experiment_folder(source) / "model.safetensors").write_bytes(b"x")
    job = api.submit(
        type="analysis",
        checkpoint=f"{source}/final",
        config={"prompts": ["Tom"], "gating_mode": "random"},
        priority=5,
        name="Tom's",
    )
    with api.context.sessions.begin() as session:
        claimed = claim_job(session, "training", "worker-1", api.settings)
        assert claimed is not None and claimed.id == job["id"]
        register_analysis(session, job["id"], 1, result=RESULT)
    return {**job, "source": source}


def test_the_analysis_of_a_job_is_listed_with_the_experiment_it_is_about(api: Api) -> None:
    job = analysis_job(api)
    own = api.http.get(f"/api/experiments/{job['experimentId']}/analyses").json()["analyses"]
    assert [(analysis["jobId"], analysis["name"]) for analysis in own] == [(job["id"], "Tom's")]
    about = f"/api/experiments/{job['source']}/analyses"
    assert api.http.get(about).json()["analyses"] == own
    assert api.http.get(about, params={"derived": False}).json()["analyses"] == []


def test_an_analysis_that_a_live_job_may_save_again_is_not_deleted(api: Api) -> None:
    job = analysis_job(api)
    path = f"/api/experiments/{job['experimentId']}/analyses"
    [own] = api.http.get(path).json()["analyses"]
    for refused in (api.admin.delete(path), api.admin.delete(f"/api/analyses/{own['id']}")):
        assert (refused.status_code, refused.json()["code"]) == (409, "job_is_live")
    with api.context.sessions.begin() as session:
        session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job["id"]})
    assert api.admin.delete(path).json() == {"deleted": 1}
    assert api.http.get(path).json()["analyses"] == []


def test_deleted_and_unknown_ones_are_404(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    path = f"/api/experiments/{experiment}/analyses"
    one = api.admin.post(path, json={"result": RESULT}).json()["id"]
    assert api.admin.delete(f"/api/analyses/{one}").status_code == 204
    missing = [
        api.admin.delete(f"/api/analyses/{one}"),
        api.http.get(f"/api/analyses/{one}"),
        api.http.get("/api/experiments/nosuch/analyses"),
        api.admin.post("/api/experiments/nosuch/analyses", json={"result": RESULT}),
        api.admin.delete("/api/experiments/nosuch/analyses"),
    ]
    assert [reply.status_code for reply in missing] == [404] * 5


def test_saving_and_deleting_need_a_token(api: Api) -> None:
    experiment = api.submit()["experimentId"]
    path = f"/api/experiments/{experiment}/analyses"
    replies = [api.http.post(path, json={"result": RESULT}), api.http.delete(path), api.http.delete("/api/analyses/x")]
    assert [reply.status_code for reply in replies] == [401] * 3


UNKEPT = [
    ('{"result": {"kind": "single"}}', "body.result.request"),
    (json.dumps({"result": {**RESULT, "kind": "other"}}), "body.result.kind"),
    (json.dumps({"result": {**RESULT, "request": {"seed": math.nan}}}), "body.result"),
    (json.dumps({"result": RESULT, "name": "a\x00"}), "body.name"),
]


def test_only_valid_analyses_are_saved(api: Api) -> None:
    path = f"/api/experiments/{api.submit()['experimentId']}/analyses"
    for body, location in UNKEPT:
        reply = api.admin.post(path, content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code == 422, reply.text
        assert location in [finding["location"] for finding in reply.json()["errors"]]
    assert api.http.get(path).json()["analyses"] == []


NEVER: list[tuple[dict[str, Any], str]] = [
    ({"config": {"prompts": ["a"]}}, "body.rlCheckpoint"),
    ({"config": {"prompts": ["a"], "gating_mode": "random"}, "rlCheckpoint": POLICY}, "body.rlCheckpoint"),
    ({"config": {"prompt": ["a"]}}, "body.config.prompt"),
    ({"config": {"prompts": ["a"], "max_tokens": 0}}, "body.config.max_tokens"),
    ({"config": {"prompts": ["a"], "samples_per_prompt": 64, "max_tokens": 4096}}, "body.config"),
    ({"config": {"prompts": ["a"]}, "data": {"source": "builtin:stories"}}, "body.data"),
    ({"checkpoint": None, "config": {"prompts": ["a"]}}, "body.checkpoint"),
]


@pytest.fixture
def files(api: Api) -> None:
    """Create checkpoint files that requests can refer to; no test loads them."""
    for name in (MODEL, POLICY):
        experiment, file = name.split("/")
        (api.experiment_folder(experiment) / file).write_bytes(b"x")


def test_a_job_that_could_never_run_is_rejected(api: Api, files: None) -> None:
    for changes, location in NEVER:
        reply = api.admin.post("/api/jobs", json={"type": "analysis", "checkpoint": MODEL, **changes})
        assert reply.status_code == 422, reply.text
        assert location in [finding["location"] for finding in reply.json()["errors"]], changes


def test_a_dry_run_shows_the_complete_job(api: Api, files: None) -> None:
    body = {"type": "analysis", "checkpoint": MODEL, "rlCheckpoint": "exp-2/final", "config": {"prompts": ["a", "b"]}}
    found = api.admin.post("/api/jobs?dryRun=true", json=body).json()
    assert found["experimentType"] == "analysis"
    assert found["payload"]["rl_checkpoint"] == POLICY
    assert found["payload"]["analysis"] == {
        "kind": "batch",
        "prompts": ["a", "b"],
        "samples_per_prompt": 1,
        "max_tokens": 50,
        "gating_mode": "learned",
        "modulation": 0.5,
        "seed": 0,
        "bootstrap": False,
        "include_extreme_values": False,
    }
