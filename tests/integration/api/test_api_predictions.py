"""Predicted parameters, memory and duration of a training, and their comparison with the measurement."""

from __future__ import annotations

import json

import redis
from sqlalchemy import select

from common.config import LMConfig
from common.db import Job
from common.jobs.queue import claim_job, complete_job, record_measurement, transition
from common.prediction.estimate import shape_key
from tests.integration.api.conftest import TINY_CONFIG, Api
from tests.integration.api.heartbeats import beat
from tests.unit.common.prediction.calibrations import CPU_MACHINE, calibration
from tidal_client.vocabulary import JobStatus

BODY = {"type": "lm-training", "config": TINY_CONFIG}


def announce(client: redis.Redis, *, calibrated: bool = True) -> None:
    """Write the heartbeat of a worker on `CPU_MACHINE`."""
    known = {"calibration": calibration().model_dump_json()} if calibrated else {}
    beat(client, "worker-1", machine=CPU_MACHINE.model_dump_json(), memoryLimitBytes="8000000000", **known)


def test_without_a_worker_only_the_parameters_are_known(api: Api) -> None:
    found = api.admin.post("/api/jobs?dryRun=true", json={"type": "lm-training"}).json()["training"]
    assert found["parameters"] > 0
    assert found["machines"] == []
    assert "No running worker is known, so memory and duration are unknown." in found["notes"]


def test_a_dry_run_predicts_for_the_calibrated_machine_of_a_worker(api: Api, redis_client: redis.Redis) -> None:
    announce(redis_client)
    found = api.admin.post("/api/jobs?dryRun=true", json=BODY).json()["training"]
    [machine] = found["machines"]
    assert (machine["machine"], machine["description"]) == (CPU_MACHINE.key, "Made-up CPU, 2 cores")
    assert machine["memoryLimitBytes"] == 8_000_000_000 and machine["fits"] is True
    assert machine["durationSeconds"] > 5.0 and machine["tokensPerSecond"] > 0
    assert machine["basis"] == "calibration of this machine on 2026-01-02"


def test_an_uncalibrated_machine_gets_a_note_instead_of_figures(api: Api, redis_client: redis.Redis) -> None:
    announce(redis_client, calibrated=False)
    [machine] = api.admin.post("/api/jobs?dryRun=true", json=BODY).json()["training"]["machines"]
    assert (machine["memoryBytes"], machine["durationSeconds"], machine["basis"]) == (None, None, "")
    assert "has not been calibrated yet" in machine["notes"][0]


def test_of_equal_machines_the_smallest_memory_counts(api: Api, redis_client: redis.Redis) -> None:
    announce(redis_client)
    beat(redis_client, "worker-2", machine=CPU_MACHINE.model_dump_json(), memoryLimitBytes="500000")
    [machine] = api.admin.post("/api/jobs?dryRun=true", json=BODY).json()["training"]["machines"]
    assert machine["memoryLimitBytes"] == 500_000 and machine["fits"] is False
    assert machine["basis"] == "calibration of this machine on 2026-01-02"


def test_other_types_have_no_prediction(api: Api) -> None:
    data = {"type": "dataset", "data": {"source": "builtin:stories"}}
    assert api.admin.post("/api/jobs?dryRun=true", json=data).json()["training"] is None
    job_id = api.admin.post("/api/jobs", json=data).json()["id"]
    with api.context.sessions() as session:
        assert session.scalar(select(Job.id).where(Job.id == job_id, Job.prediction.is_(None))) == job_id


def test_a_job_keeps_its_prediction_and_its_measurement_predicts_the_next_one(
    api: Api, redis_client: redis.Redis
) -> None:
    announce(redis_client)
    job = api.submit(**BODY)
    assert job["prediction"]["machines"][0]["machine"] == CPU_MACHINE.key
    assert job["measurement"] is None
    measured = {
        "machine": CPU_MACHINE.key,
        "shape": shape_key(LMConfig.model_validate(job["payload"]["config"])),
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
        "steps": 5,
        "tokens": 100,
        "seconds": 9.0,
        "training_seconds": 4.0,
        "tokens_per_second": 25.0,
        "memory_bytes": 123_456_789,
    }
    with api.context.sessions.begin() as session:
        claimed = claim_job(session, "training", "worker-1", api.settings)
        assert claimed is not None
        transition(session, claimed.id, claimed.attempt, JobStatus.STARTING, event="starting")
        record_measurement(session, claimed.id, claimed.attempt, measured)
        complete_job(session, claimed.id, claimed.attempt)
    shown = api.http.get(f"/api/jobs/{job['id']}").json()
    assert (shown["measurement"]["memoryBytes"], shown["measurement"]["seconds"]) == (123_456_789, 9.0)
    [machine] = api.admin.post("/api/jobs?dryRun=true", json=BODY).json()["training"]["machines"]
    assert (machine["tokensPerSecond"], machine["memoryBytes"]) == (25.0, 123_456_789)
    assert machine["basis"] == "1 earlier run of the same shape on this kind of machine"
    with api.context.sessions() as session:
        assert session.scalars(select(Job.measurement)).one() == json.loads(json.dumps(measured))


def test_a_resumed_fine_tuning_is_predicted_from_the_checkpoint_of_its_parent(api: Api) -> None:
    """The parent's payload names a file of weights, from which the new job does not start."""
    folder = api.experiment_folder("base")
    (folder / "model.safetensors").write_bytes(b"x")
    config = {**TINY_CONFIG, "training": {"max_steps": 10}, "evaluation": {"max_batches": 1}}
    parent = api.submit(checkpoint="base/final", config=config)
    assert "fine-tuning" in " ".join(parent["prediction"]["notes"])
    with api.context.sessions.begin() as session:
        job = session.get_one(Job, parent["id"])
        job.checkpoint_ref, job.checkpoint_step = f"{job.experiment_id}/checkpoints/step-000000004.1", 4
    api.admin.post(f"/api/jobs/{parent['id']}/cancel").raise_for_status()
    resumed = api.admin.post("/api/jobs", json={"type": "lm-training", "resumeFrom": parent["id"]}).json()
    assert resumed["payload"]["checkpoint_mode"] == "continue"
    assert "fine-tuning" not in " ".join(resumed["prediction"]["notes"])
    assert resumed["prediction"]["steps"] == 6
