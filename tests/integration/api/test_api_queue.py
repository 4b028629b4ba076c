"""The queue over HTTP: waiting jobs, predicted starts, limits and workers."""

from __future__ import annotations

from datetime import datetime

import redis

from common.jobs.queue import claim_job, record_progress, transition
from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.heartbeats import beat
from tidal_client.vocabulary import JobStatus


def test_the_queue_contains_waiting_jobs_limits_and_workers(api: Api, redis_client: redis.Redis) -> None:
    beat(redis_client, "w1", state="busy")
    beat(redis_client, "w2", queue="generate")
    running, first, second = api.submit(), api.submit(name="next"), api.submit(priority=-1)
    with api.context.sessions.begin() as session:
        job = claim_job(session, "training", "w1", api.settings)
        assert job is not None and job.id == running["id"]
        for status in (JobStatus.STARTING, JobStatus.RUNNING):
            transition(session, job.id, 1, status)
        record_progress(session, job.id, 1, step=1, eta_seconds=300.0)
    reply = api.http.get("/api/queue", params={"limit": 1})
    assert reply.status_code == 200
    (queue,) = reply.json()["queues"]
    assert queue["queue"] == "training"
    assert [(worker["worker"], worker["state"]) for worker in queue["workers"]] == [("w1", "busy")]
    lm = queue["types"][0]
    counts = {name: lm[name] for name in ("type", "limit", "running", "stale", "pending", "usualSeconds")}
    assert counts == {
        "type": "lm-training",
        "limit": 1,
        "running": 1,
        "stale": 0,
        "pending": 2,
        "usualSeconds": None,
    }
    (shown,) = lm["jobs"]
    assert (shown["id"], shown["name"], shown["position"]) == (first["id"], "next", 1)
    job_view = api.http.get(f"/api/jobs/{first['id']}").json()
    assert job_view["queuePosition"] == 1
    predicted, updated = (datetime.fromisoformat(time) for time in (job_view["predictedStart"], job_view["updatedAt"]))
    assert 290 < (predicted - updated).total_seconds() < 330
    behind = api.http.get(f"/api/jobs/{second['id']}").json()
    assert (behind["queuePosition"], behind["predictedStart"]) == (2, None)  # no finished job from which to estimate
    page = {job["id"]: job["predictedStart"] for job in api.http.get("/api/jobs").json()["jobs"]}
    assert page[running["id"]] is None and page[first["id"]] is not None


def test_the_queue_reports_a_missing_limit(serve: RunApi) -> None:
    with serve(lm_training_concurrency=0) as api:
        (queue,) = api.http.get("/api/queue").json()["queues"]
        assert (queue["types"][0]["limit"], queue["workers"]) == (None, [])


def test_workers_are_unknown_while_redis_is_unavailable(serve: RunApi) -> None:
    with serve(redis_url="redis://127.0.0.1:1/0") as api:
        job = api.submit()
        (queue,) = api.http.get("/api/queue").json()["queues"]
        assert queue["workers"] is None
        assert queue["types"][0]["jobs"][0]["id"] == job["id"]
        assert queue["types"][0]["jobs"][0]["predictedStart"] is None
