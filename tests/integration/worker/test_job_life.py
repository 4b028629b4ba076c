"""A job from submission to its end, with a real Celery worker: every signal leads to the right status and events."""

from __future__ import annotations

import json

import redis

from common.redis import keys
from tests.integration.worker.workers import LONG, Workers


def test_a_submitted_job_is_completed_and_its_artifacts_are_registered(
    workers: Workers, redis_client: redis.Redis
) -> None:
    job_id = workers.submit()
    workers.worker()
    job = workers.wait_status(job_id, "completed")
    assert workers.statuses(job_id) == ["pending", "provisioning", "starting", "running", "completing", "completed"]
    assert (job.attempt, job.lease_owner, job.progress_step, job.progress_total_steps) == (1, None, 20, 20)
    assert [(a.name, a.kind, a.step) for a in workers.artifacts(job_id)] == [
        ("checkpoints/step-000000005", "training", 5),
        ("checkpoints/step-000000010", "training", 10),
        ("checkpoints/step-000000015", "training", 15),
        ("checkpoints/step-000000020", "training", 20),
        ("model.pth", "model", None),
    ]
    log = (workers.experiment(job_id) / "logs" / "1.log").read_text()
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


def test_the_next_job_begins_when_the_slot_is_free(workers: Workers) -> None:
    first, second = workers.submit(), workers.submit(priority=5)
    workers.worker()
    workers.wait_status(first, "completed")
    workers.wait_status(second, "completed")
    assert min(s.time for s in workers.steps(first)) > max(s.time for s in workers.steps(second)), "priority goes first"


def test_complete_ends_training_and_writes_the_final_model(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_status(job_id, "running")
    workers.signal(job_id, "complete")
    workers.wait_status(job_id, "completed")
    assert workers.statuses(job_id)[-2:] == ["completing", "completed"]
    assert "model.pth" in {artifact.name for artifact in workers.artifacts(job_id)}


def test_stop_leaves_a_checkpoint_and_a_cancelled_job(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_steps(job_id, 7)
    workers.signal(job_id, "stop")
    job = workers.wait_status(job_id, "cancelled")
    assert workers.statuses(job_id)[-2:] == ["stopping", "cancelled"]
    last = workers.steps(job_id)[-1].step
    assert job.checkpoint_ref == f"{job.experiment_id}/checkpoints/step-{last:09d}"


def test_pause_frees_the_slot_and_resume_continues_at_the_next_step(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_steps(job_id, 3)
    workers.signal(job_id, "pause")
    job = workers.wait_status(job_id, "paused")
    assert job.lease_owner is None
    assert workers.trainers() == []
    before = workers.steps(job_id)[-1].step
    workers.signal(job_id, "resume")
    workers.wait_steps(job_id, 1, attempt=2)
    assert next(s.step for s in workers.steps(job_id) if s.attempt == 2) == before + 1
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


def test_a_pause_during_the_preparation_waits_for_the_first_safe_point(workers: Workers) -> None:
    job_id = workers.submit()
    # The preparation takes longer than the grace period of 4 s. A step is shorter than that even on a busy machine.
    workers.worker(plan={**LONG, "prepare_seconds": 5.0}, TIDAL_STOP_GRACE_SECONDS="4", TIDAL_KILL_GRACE_SECONDS="4")
    workers.wait_status(job_id, "starting")
    workers.signal(job_id, "pause")
    job = workers.wait_status(job_id, ("paused", "pending"))
    assert (job.status, job.attempt) == ("paused", 1)
    assert not {"sigterm_sent", "sigkill_sent"} & set(workers.event_names(job_id))


def test_cancel_kills_a_trainer_that_ignores_it_at_the_end_of_the_grace_period(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan={**LONG, "deaf": True})
    workers.wait_steps(job_id, 6)
    [trainer] = workers.trainers()
    workers.cancel(job_id)
    workers.wait_status(job_id, "cancelled", seconds=10)
    assert not trainer.is_running()
    assert "sigkill_sent" in workers.event_names(job_id)
    assert "sigterm_sent" not in workers.event_names(job_id)


def test_a_pause_that_the_trainer_ignores_escalates_and_keeps_the_last_checkpoint(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan={**LONG, "deaf": True})
    workers.wait_steps(job_id, 6)
    workers.signal(job_id, "pause")
    job = workers.wait_status(job_id, "paused", seconds=15)
    names = workers.event_names(job_id)
    assert names.index("sigterm_sent") < names.index("sigkill_sent") < names.index("paused")
    assert job.checkpoint_ref is not None


def test_a_worker_is_displayed_from_its_start_to_its_shutdown(workers: Workers, redis_client: redis.Redis) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_steps(job_id, 3)
    [name] = redis_client.zrange(keys.WORKERS, 0, -1)
    workers.wait_for(
        lambda: redis_client.hget(keys.heartbeat(name), "step") not in (None, ""), "a step in the heartbeat"
    )
    beat = redis_client.hgetall(keys.heartbeat(name))
    assert beat["state"] == "busy"
    assert beat["job"] == job_id
    assert int(beat["memoryBytes"]) > 10_000_000
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")
    workers.processes["worker"].terminate()
    workers.processes["worker"].wait(20)
    assert redis_client.zrange(keys.WORKERS, 0, -1) == []
