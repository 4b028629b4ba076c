"""Deleting a checkpoint removes its database row and its files. This is refused while an unfinished job needs it."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from common.db import Checkpoint
from tests.integration.api.conftest import Api


@pytest.fixture
def ended(api: Api) -> str:
    """Create the experiment of a cancelled job with a final model and two training checkpoints."""
    job = api.submit(name="old")
    assert api.admin.post(f"/api/jobs/{job['id']}/cancel").status_code == 200
    experiment = str(job["experimentId"])
    folder = api.experiment_folder(experiment)
    (folder / "model.safetensors").write_bytes(b"weights")
    with api.context.sessions.begin() as session:
        for step in (10, 20):
            name = f"checkpoints/step-{step:09}"
            (folder / name).mkdir(parents=True)
            (folder / name / "manifest.json").write_text(json.dumps({"step": step}))
            row = {"experiment_id": experiment, "kind": "training", "name": name, "step": step, "sha256": "0" * 64}
            session.add(Checkpoint(**row))
        values = {"ref": f"{experiment}/checkpoints/step-000000020", "id": job["id"]}
        session.execute(text("UPDATE jobs SET checkpoint_ref = :ref, checkpoint_step = 20 WHERE id = :id"), values)
    return experiment


def test_a_checkpoint_that_a_waiting_job_needs_is_not_deleted(api: Api, ended: str) -> None:
    path = f"/api/experiments/{ended}"
    waiting = api.submit(checkpoint=f"{ended}/model.safetensors")
    assert api.http.delete(f"{path}/checkpoints/model.safetensors").status_code == 401
    assert api.admin.delete(f"{path}/checkpoints/model.safetensors").json()["code"] == "job_is_live"
    assert api.admin.delete(f"{path}/checkpoints/checkpoints/step-000000010").status_code == 204
    assert api.admin.post(f"/api/jobs/{waiting['id']}/cancel").status_code == 200
    assert api.admin.delete(f"{path}/checkpoints/model.safetensors").status_code == 204


def test_a_job_resumes_from_the_newest_remaining_checkpoint(api: Api, ended: str) -> None:
    path = f"/api/experiments/{ended}/checkpoints/checkpoints"
    assert api.admin.delete(f"{path}/step-000000020").status_code == 204
    assert not (api.settings.experiments_dir / ended / "checkpoints/step-000000020").exists()
    job_id = api.http.get(f"/api/experiments/{ended}").json()["jobId"]
    job = api.http.get(f"/api/jobs/{job_id}").json()
    assert (job["checkpointRef"], job["checkpointStep"]) == (f"{ended}/checkpoints/step-000000010", 10)
    assert api.admin.delete(f"{path}/step-000000010").status_code == 204
    job = api.http.get(f"/api/jobs/{job_id}").json()
    assert (job["checkpointRef"], job["checkpointStep"]) == (None, None)


def test_only_checkpoints_of_the_list_are_deleted(api: Api, ended: str) -> None:
    (api.experiment_folder(ended) / "config.yaml").write_text("{}")
    for name in ("config.yaml", "final", "../other", "checkpoints", "checkpoints/step-000000010/manifest.json"):
        assert api.admin.delete(f"/api/experiments/{ended}/checkpoints/{name}").status_code in (404, 405), name
    assert (api.experiment_folder(ended) / "config.yaml").exists()
