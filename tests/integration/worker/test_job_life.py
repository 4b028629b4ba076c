"""A job from submission to its end, with a real Celery worker: every signal leads to the right status and events."""

from __future__ import annotations

import json

import redis

from common.redis import keys
from tests.integration.worker.fleet import LONG, Fleet


def test_a_submitted_job_is_completed_and_its_artifacts_are_registered(fleet: Fleet, redis_client: redis.Redis) -> None:
    job_id = fleet.submit()
    fleet.worker()
    job = fleet.wait_status(job_id, "completed")
    assert fleet.statuses(job_id) == ["pending", "provisioning", "starting", "running", "completing", "completed"]
    assert (job.attempt, job.lease_owner, job.progress_step, job.progress_total_steps) == (1, None, 20, 20)
    assert [(a.name, a.kind, a.step) for a in fleet.artifacts(job_id)] == [
        ("checkpoints/step-000000005", "training", 5),
        ("checkpoints/step-000000010", "training", 10),
        ("checkpoints/step-000000015", "training", 15),
        ("checkpoints/step-000000020", "training", 20),
        ("model.pth", "model", None),
    ]
    log = (fleet.experiment(job_id) / "logs" / "1.log").read_text()
    assert log == "attempt 1 begins\na warning on stderr\nlast step 20\n"
    entries = redis_client.xrange(keys.experiment_stream(job.experiment_id))
    lines = [
        line
        for _, entry in entries
        if entry["event"] == keys.EVENT_LOG_LINES
        for line in json.loads(entry["data"])["lines"]
    ]
    assert [(line["n"], line["text"]) for line in lines] == list(enumerate(log.splitlines()))
    kinds = {entry["event"] for _, entry in entries}
    assert {keys.EVENT_STATUS, keys.EVENT_CHECKPOINT, keys.EVENT_JOB_UPDATE} <= kinds


def test_the_next_job_begins_when_the_slot_is_free(fleet: Fleet) -> None:
    first, second = fleet.submit(), fleet.submit(priority=5)
    fleet.worker()
    fleet.wait_status(first, "completed")
    fleet.wait_status(second, "completed")
    assert min(s.time for s in fleet.steps(first)) > max(s.time for s in fleet.steps(second)), "priority goes first"


def test_complete_ends_training_and_writes_the_final_model(fleet: Fleet) -> None:
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    fleet.wait_status(job_id, "running")
    fleet.signal(job_id, "complete")
    fleet.wait_status(job_id, "completed")
    assert fleet.statuses(job_id)[-2:] == ["completing", "completed"]
    assert "model.pth" in {artifact.name for artifact in fleet.artifacts(job_id)}


def test_stop_leaves_a_checkpoint_and_a_cancelled_job(fleet: Fleet) -> None:
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    fleet.wait_steps(job_id, 7)
    fleet.signal(job_id, "stop")
    job = fleet.wait_status(job_id, "cancelled")
    assert fleet.statuses(job_id)[-2:] == ["stopping", "cancelled"]
    last = fleet.steps(job_id)[-1].step
    assert job.checkpoint_ref == f"{job.experiment_id}/checkpoints/step-{last:09d}"


def test_pause_frees_the_slot_and_resume_continues_at_the_next_step(fleet: Fleet) -> None:
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    fleet.wait_steps(job_id, 3)
    fleet.signal(job_id, "pause")
    job = fleet.wait_status(job_id, "paused")
    assert job.lease_owner is None
    assert fleet.trainers() == []
    before = fleet.steps(job_id)[-1].step
    fleet.signal(job_id, "resume")
    fleet.wait_steps(job_id, 1, attempt=2)
    assert next(s.step for s in fleet.steps(job_id) if s.attempt == 2) == before + 1
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled")


def test_a_pause_during_the_preparation_waits_for_the_first_safe_point(fleet: Fleet) -> None:
    job_id = fleet.submit()
    # The preparation takes longer than the grace period of 4 s. A step ends within it even on a busy machine.
    fleet.worker(plan={**LONG, "prepare_seconds": 5.0}, TIDAL_STOP_GRACE_SECONDS="4", TIDAL_KILL_GRACE_SECONDS="4")
    fleet.wait_status(job_id, "starting")
    fleet.signal(job_id, "pause")
    job = fleet.wait_status(job_id, ("paused", "pending"))
    assert (job.status, job.attempt) == ("paused", 1)
    assert not {"sigterm_sent", "sigkill_sent"} & set(fleet.event_names(job_id))


def test_cancel_kills_a_trainer_that_ignores_it_at_the_end_of_the_grace_period(fleet: Fleet) -> None:
    job_id = fleet.submit()
    fleet.worker(plan={**LONG, "deaf": True})
    fleet.wait_steps(job_id, 6)
    [trainer] = fleet.trainers()
    fleet.cancel(job_id)
    fleet.wait_status(job_id, "cancelled", seconds=10)
    assert not trainer.is_running()
    assert "sigkill_sent" in fleet.event_names(job_id)
    assert "sigterm_sent" not in fleet.event_names(job_id)


def test_a_pause_that_the_trainer_ignores_escalates_and_keeps_the_last_checkpoint(fleet: Fleet) -> None:
    job_id = fleet.submit()
    fleet.worker(plan={**LONG, "deaf": True})
    fleet.wait_steps(job_id, 6)
    fleet.signal(job_id, "pause")
    job = fleet.wait_status(job_id, "paused", seconds=15)
    names = fleet.event_names(job_id)
    assert names.index("sigterm_sent") < names.index("sigkill_sent") < names.index("paused")
    assert job.checkpoint_ref is not None


def test_a_worker_is_displayed_from_its_start_to_its_shutdown(fleet: Fleet, redis_client: redis.Redis) -> None:
    job_id = fleet.submit()
    fleet.worker(plan=LONG)
    fleet.wait_steps(job_id, 3)
    [name] = redis_client.zrange(keys.WORKERS, 0, -1)
    fleet.wait_for(lambda: redis_client.hget(keys.heartbeat(name), "step") not in (None, ""), "a step in the heartbeat")
    beat = redis_client.hgetall(keys.heartbeat(name))
    assert beat["state"] == "busy"
    assert beat["job"] == job_id
    assert int(beat["memoryBytes"]) > 10_000_000
    fleet.signal(job_id, "stop")
    fleet.wait_status(job_id, "cancelled")
    fleet.processes["worker"].terminate()
    fleet.processes["worker"].wait(20)
    assert redis_client.zrange(keys.WORKERS, 0, -1) == []
