"""The disk usage over HTTP, and experiments whose metrics archive was deleted by retention."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import text

from common.artifacts import ArtifactStore
from common.db import make_engine
from common.jobs.retention import delete_expired_archives
from services.api import sizes
from tests.integration.api.conftest import Api, RunApi


def test_the_disk_and_the_largest_experiments(api: Api, serve: RunApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "CACHE_SECONDS", 0.0)
    first, second = (str(api.submit(name=name)["experimentId"]) for name in ("small", "large"))
    for experiment_id, size in ((first, 1000), (second, 50_000)):
        (api.experiment_folder(experiment_id) / "weights.bin").write_bytes(bytes(size))
    found = api.http.get("/api/storage").json()
    assert [(one["id"], one["name"], one["sizeBytes"]) for one in found["largest"]] == [
        (second, "large", 50_000),
        (first, "small", 1000),
    ]
    assert (found["experiments"], found["experimentsBytes"], found["retentionDays"]) == (2, 51_000, 0)
    disk = shutil.disk_usage(api.experiment_folder(first))
    assert found["diskBytes"] == disk.total and 0 < found["freeBytes"] < disk.total
    (api.experiment_folder(first) / "more.bin").write_bytes(bytes(24))
    assert api.http.get("/api/storage").json()["experimentsBytes"] == 51_024
    with serve(require_auth_for_reads=True) as closed:
        assert closed.http.get("/api/storage").status_code == 401


def test_sizes_are_measured_once_a_minute(api: Api) -> None:
    experiment_id = str(api.submit()["experimentId"])
    before = api.http.get("/api/storage").json()
    (api.experiment_folder(experiment_id) / "later.bin").write_bytes(bytes(100))
    assert api.http.get("/api/storage").json()["measuredAt"] == before["measuredAt"]


def test_an_experiment_reports_that_its_archive_was_deleted(api: Api) -> None:
    job = api.submit()
    folder = api.experiment_folder(job["experimentId"])
    (folder / "metrics").mkdir(exist_ok=True)
    api.admin.post(f"/api/jobs/{job['id']}/cancel").raise_for_status()
    path = f"/api/experiments/{job['experimentId']}"
    assert api.http.get(path).json()["archiveDeletedAt"] is None
    engine = make_engine(api.settings.database_url)
    try:
        with engine.begin() as connection:
            connection.execute(text("UPDATE jobs SET finished_at = now() - interval '2 days'"))
        assert len(delete_expired_archives(engine, ArtifactStore(api.settings.experiments_dir), 1)) == 1
    finally:
        engine.dispose()
    assert api.http.get(path).json()["archiveDeletedAt"] is not None
    assert not (folder / "metrics").exists()
