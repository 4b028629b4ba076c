"""A submission to a full queue gets 429 `too_many_waiting`, which names the setting to change; no job is stored."""

from __future__ import annotations

from tests.integration.api.conftest import RunApi

BODY = {"type": "lm-training", "config": {"data": {"source": "builtin:stories"}}}


def test_a_job_beyond_the_limit_is_refused_with_the_setting_to_change(serve: RunApi) -> None:
    with serve(max_waiting_jobs=2) as api:
        for number in range(2):
            kept = api.admin.post("/api/jobs", json=BODY, headers={"Idempotency-Key": f"key-{number}"})
            assert kept.status_code == 201
        refused = api.admin.post("/api/jobs", json=BODY)
        assert refused.status_code == 429
        problem = refused.json()
        assert problem["code"] == "too_many_waiting"
        assert "2 jobs" in problem["detail"] and "TIDAL_MAX_WAITING_JOBS" in problem["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
        predicted = api.admin.post("/api/jobs?dryRun=true", json=BODY)
        assert predicted.status_code == 429 and predicted.json()["code"] == "too_many_waiting"
        again = api.admin.post("/api/jobs", json=BODY, headers={"Idempotency-Key": "key-1"})
        assert again.status_code == 201 and again.headers["Idempotency-Replayed"] == "true"
        assert len(api.http.get("/api/jobs").json()["jobs"]) == 2


def test_an_upload_is_stored_without_a_job(serve: RunApi) -> None:
    with serve(max_waiting_jobs=1) as api:
        assert api.admin.post("/api/jobs", json=BODY).status_code == 201
        reply = api.admin.post("/api/datasets?name=sea.txt", content=b"The sea is wide.<|endoftext|>" * 50)
        assert reply.status_code == 201, reply.text
        assert reply.json()["job"] is None and reply.json()["dataset"]["status"] == "uploaded"
