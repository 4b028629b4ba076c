"""Jobs survive the loss of their trainer or worker, and of the worker's connections."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import undefer

from common.db import Analysis
from common.redis.publisher import RedisPublisher
from tests.integration.worker.workers import LONG, Workers
from tidal_client.vocabulary import JobType


def test_kill_9_of_the_trainer_is_detected_at_once_and_the_job_resumes_from_its_checkpoint(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG)
    workers.wait_steps(job_id, 7)
    [trainer] = workers.trainers()
    trainer.kill()
    killed_at = time.monotonic()
    workers.wait_for(lambda: "restarted" in workers.event_names(job_id), "the restart", 10, job_id)
    assert time.monotonic() - killed_at < 10  # the specified limit is 5 s
    workers.wait_steps(job_id, 1, attempt=2)
    steps = workers.steps(job_id)
    resumed = next(s for s in steps if s.attempt == 2)
    assert resumed.step % 5 == 1, "the step after a checkpoint"
    assert resumed.time > max(s.time for s in steps if s.attempt == 1)
    restart = next(event for event in workers.events(job_id) if event.event == "restarted")
    assert restart.details["code"] == "trainer_killed"
    assert workers.job(job_id).infra_restarts in (0, 1)
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


def test_kill_9_of_the_worker_ends_its_trainer_and_another_worker_continues(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_steps(job_id, 7)
    [trainer] = workers.trainers("first")
    workers.worker("second", plan=LONG)
    workers.kill("first")
    trainer_ended = psutil.wait_procs([trainer], timeout=2)[1] == []
    assert trainer_ended, "the trainer outlived its supervisor by 2 s"
    workers.wait_steps(job_id, 1, attempt=2, seconds=20)
    steps = workers.steps(job_id)
    resumed = next(s for s in steps if s.attempt == 2)
    assert resumed.step % 5 == 1
    assert resumed.time > max(s.time for s in steps if s.attempt == 1)
    assert [name for name in workers.statuses(job_id) if name == "stale"] == ["stale"]
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


def test_sigterm_of_a_worker_hands_the_job_to_another_one(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_steps(job_id, 3)
    workers.worker("second", plan=LONG)
    workers.processes["first"].terminate()
    assert workers.processes["first"].wait(15) == 0
    workers.wait_steps(job_id, 1, attempt=2)
    steps = workers.steps(job_id)
    assert next(s.step for s in steps if s.attempt == 2) == max(s.step for s in steps if s.attempt == 1) + 1
    released = next(event for event in workers.events(job_id) if event.event == "released")
    assert released.details["reason"] == "drained"
    assert "stale" not in workers.statuses(job_id)
    assert workers.job(job_id).infra_restarts == 0
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ("fail:user", "bad_data", "no such corpus"),
        ("fail:cuda_oom", "cuda_out_of_memory", "no such corpus"),
        ("exit:3", "trainer_exited", "about to leave"),
    ],
)
def test_a_user_error_fails_the_job_at_once_with_the_reason(
    workers: Workers, ending: str, code: str, words: str
) -> None:
    job_id = workers.submit()
    workers.worker(plan={**LONG, "ending": ending})
    job = workers.wait_status(job_id, "failed")
    assert (job.attempt, job.error_code, job.user_failures) == (1, code, 1)
    assert words in str(job.error_message)
    assert workers.trainers() == []


def test_a_trainer_that_dies_again_and_again_fails_the_job_at_the_third_time(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan={**LONG, "ending": f"signal:{signal.SIGSEGV.value}", "at": 2})
    job = workers.wait_status(job_id, "failed", seconds=60)
    assert (job.attempt, job.error_code, job.infra_restarts) == (3, "trainer_killed", 3)
    assert "SIGSEGV" in str(job.error_message)


def test_an_analysis_of_an_attempt_that_died_after_reporting_it_is_stored_once(workers: Workers) -> None:
    result = {"kind": "single", "request": {"seed": 7}, "trajectories": []}
    payload = {"checkpoint": "exp/final", "analysis": {"prompts": ["Tom"], "gating_mode": "random"}}
    job_id = workers.submit(type=JobType.ANALYSIS, payload=payload, name="Tom's")
    workers.worker(plan={"steps": 5, "every": 1000, "analysis": result})
    job = workers.wait_status(job_id, "completed")
    assert job.attempt == 2
    with workers.sessions() as session:
        [kept] = session.scalars(select(Analysis).options(undefer(Analysis.result))).all()
    assert (kept.experiment_id, kept.job_id, kept.name) == (job.experiment_id, job_id, "Tom's")
    assert (kept.request, kept.result) == ({"seed": 7}, {**result, "attempt": 2})
    assert sorted((artifact.name, artifact.kind) for artifact in workers.artifacts(job_id)) == [
        ("analysis_results.json", "result"),
        ("model.pth", "model"),
    ]


def test_a_suspended_worker_writes_nothing_more_and_two_attempts_never_overlap(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker("first", plan=LONG)
    workers.wait_steps(job_id, 7)
    [trainer] = workers.trainers("first")
    workers.worker("second", plan=LONG)
    workers.processes["first"].send_signal(signal.SIGSTOP)
    workers.wait_steps(job_id, 10, attempt=2, seconds=30)
    workers.processes["first"].send_signal(signal.SIGCONT)
    assert psutil.wait_procs([trainer], timeout=10)[1] == []
    steps = workers.steps(job_id)
    assert max(s.time for s in steps if s.attempt == 1) < min(s.time for s in steps if s.attempt == 2)
    assert workers.job(job_id).attempt == 2
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


def test_the_environment_of_a_trainer_has_no_secret_of_the_database(workers: Workers) -> None:
    job_id = workers.submit()
    workers.worker(plan=LONG, TIDAL_AUTH_TOKEN="secret-token", TIDAL_FLOWER_PASSWORD="secret-login")
    workers.wait_steps(job_id, 1)
    [trainer] = workers.trainers()
    environ = trainer.environ()
    assert "TIDAL_DATABASE_URL" not in environ
    assert not {"secret-token", "secret-login"} & set(environ.values())
    assert os.getsid(trainer.pid) == trainer.pid
    workers.signal(job_id, "stop")
    workers.wait_status(job_id, "cancelled")


def test_the_same_notification_twenty_times_to_two_workers_is_one_claim(workers: Workers) -> None:
    publisher = RedisPublisher(workers.settings.redis_url)
    job_id = workers.submit()
    for _ in range(20):
        publisher.notify_worker("training")
    for name in ("first", "second"):
        workers.worker(name)
    workers.wait_status(job_id, "completed")
    workers.wait_for(lambda: publisher.undelivered("training") == 0, "all notifications received")
    publisher.close()
    assert workers.event_names(job_id).count("claimed") == 1
    assert [step.step for step in workers.steps(job_id)] == list(range(1, 21))
