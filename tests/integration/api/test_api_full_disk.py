"""/readyz, /metrics and jobs report a disk below its reserve, but the api stays ready for requests."""

from __future__ import annotations

from common.disk import MIB, Shortage
from common.jobs.queue import claim_job, record_event, record_progress, transition
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.prometheus_samples import samples
from tidal_client.vocabulary import WAITING_FOR_DISK, JobStatus

ENDLESS_MB = 10**9
"""A reserve in MiB that is larger than any disk."""


def test_the_api_is_ready_and_reports_a_full_disk(serve: RunApi) -> None:
    with serve(disk_reserve_mb=ENDLESS_MB) as api:
        reply = api.http.get("/readyz")
        assert reply.status_code == 200 and reply.json()["ready"] is True
        part = reply.json()["parts"]["disk"]
        assert (part["ok"], part["required"]) == (False, False)
        assert "MiB are free" in part["detail"] and "TIDAL_DISK_RESERVE_MB" in part["detail"]
        found = samples(api)
        assert found["tidal_disk_free_bytes"][()] < found["tidal_disk_reserve_bytes"][()] == ENDLESS_MB * MIB
        refused = api.admin.post("/api/datasets?name=sea.txt", content=b"The sea is wide.")
        assert refused.status_code == 507
        assert "are kept free" in refused.json()["detail"]


def test_a_disk_with_enough_space_is_ok(api: Api) -> None:
    assert api.http.get("/readyz").json()["parts"]["disk"] == {"ok": True, "detail": "ok", "required": False}


def test_a_waiting_job_reports_the_free_and_the_needed_space(api: Api) -> None:
    job_id = api.submit()["id"]
    lacks = Shortage("experiments", 12 * MIB, 2**60)
    with api.context.sessions.begin() as session:
        assert claim_job(session, "training", "worker-1", api.settings) is not None
        transition(session, job_id, 1, JobStatus.STARTING)
        record_event(session, job_id, 1, WAITING_FOR_DISK, lacks.details())
        record_progress(session, job_id, 1, step=7, total_steps=9, phase=WAITING_FOR_DISK)
    job = api.http.get(f"/api/jobs/{job_id}").json()
    assert job["progress"]["phase"] == WAITING_FOR_DISK
    assert "MiB are free on the disk of the experiments, 1,099,511,627,776 MiB are needed" in job["whatNext"]
    assert str(api.settings.experiments_dir) not in job["whatNext"]
    assert samples(api)["tidal_jobs_waiting_for_disk"][()] == 1
