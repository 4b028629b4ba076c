"""Experiments are named, tagged, annotated and deleted. An experiment that a job needs cannot be deleted."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from common.db import Experiment, Job
from common.db.models.job_event import JobEvent
from tests.integration.api.conftest import Api


def cancelled(api: Api) -> str:
    """Return the experiment of a cancelled job."""
    job = api.submit(name="first", tags=["a"])
    assert api.admin.post(f"/api/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    return str(job["experimentId"])


def test_a_change_sets_only_the_given_fields(api: Api) -> None:
    experiment = cancelled(api)
    url = f"/api/experiments/{experiment}"
    before = api.http.get(url).json()
    changed = api.admin.patch(url, json={"notes": "looks good", "tags": ["b", "c"]}).json()
    assert (changed["name"], changed["tags"], changed["notes"]) == (before["name"], ["b", "c"], "looks good")
    assert api.admin.patch(url, json={"name": None}).json()["name"] is None
    assert [e["id"] for e in api.http.get("/api/experiments?tag=c").json()["experiments"]] == [experiment]


def test_a_change_needs_a_token_and_valid_values(api: Api) -> None:
    url = f"/api/experiments/{cancelled(api)}"
    assert api.http.patch(url, json={"name": "x"}).status_code == 401
    assert api.admin.patch(url, json={"size": 1}).status_code == 422
    assert api.admin.patch(url, json={"tags": ["no spaces"]}).status_code == 422
    assert api.admin.patch("/api/experiments/none", json={"name": "x"}).status_code == 404


def test_a_deletion_removes_rows_and_files_of_one_experiment_only(api: Api, sessions: sessionmaker[Session]) -> None:
    doomed, other = cancelled(api), cancelled(api)
    for experiment in (doomed, other):
        (api.experiment_folder(experiment) / "logs").mkdir()
        (api.experiment_folder(experiment) / "logs" / "1.log").write_text("line\n")
    assert api.http.delete(f"/api/experiments/{doomed}").status_code == 401
    assert api.admin.delete(f"/api/experiments/{doomed}").status_code == 204
    assert not (api.settings.experiments_dir / doomed).exists()
    assert (api.settings.experiments_dir / other / "logs" / "1.log").is_file()
    assert api.http.get(f"/api/experiments/{doomed}").status_code == 404
    with sessions() as session:
        assert session.scalars(select(Experiment.id)).all() == [other]
        assert session.scalars(select(Job.experiment_id)).all() == [other]
        jobs = session.scalars(select(JobEvent.job_id).distinct()).all()
        assert len(jobs) == session.scalar(select(func.count()).select_from(Job)) == 1
    assert api.admin.delete(f"/api/experiments/{doomed}").status_code == 404


def test_an_experiment_that_a_live_job_uses_is_not_deleted(api: Api, sessions: sessionmaker[Session]) -> None:
    source = cancelled(api)
    job = api.submit()
    own = api.admin.delete(f"/api/experiments/{job['experimentId']}")
    assert (own.status_code, "belongs to the experiment" in own.json()["detail"]) == (409, True)
    with sessions.begin() as session:
        session.execute(
            update(Experiment).where(Experiment.id == job["experimentId"]).values(source_experiment_id=source)
        )
    read = api.admin.delete(f"/api/experiments/{source}")
    assert (read.status_code, "reads from the experiment" in read.json()["detail"]) == (409, True)
    api.admin.post(f"/api/jobs/{job['id']}/cancel")
    assert api.admin.delete(f"/api/experiments/{source}").status_code == 204


def test_a_repeated_deletion_removes_the_files_of_an_interrupted_one(api: Api) -> None:
    experiment = cancelled(api)
    api.admin.delete(f"/api/experiments/{experiment}")
    (api.experiment_folder(experiment) / "config.yaml").write_text("{}")
    assert api.admin.delete(f"/api/experiments/{experiment}").status_code == 204
    assert not (api.settings.experiments_dir / experiment).exists()
