"""Submission: one job per Idempotency-Key, all rows in one transaction, and no job that can never run."""

from __future__ import annotations

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from common.config import LMConfig, dump_yaml
from common.db import Experiment, Job, JobEvent, Outbox
from common.errors import ConfigError, ConflictError, InvalidInputError, NotFoundError
from common.jobs.experiments import name_suffix
from common.jobs.payloads import LmTrainingPayload
from common.jobs.queue import NewJob, enqueue_job
from common.jobs.signals import request_cancel
from common.jobs.submission import forget_idempotency_keys
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus, JobType

LM = JobType.LM_TRAINING
S = JobStatus


def test_a_submission_makes_job_experiment_event_and_outbox_rows_together(job_queue: JobQueue) -> None:
    job = job_queue.job(job_queue.submit(name="first", tags=("a", "b"), priority=7))
    assert (job.status, job.desired_state, job.attempt, job.priority, job.tags) == ("pending", "run", 0, 7, ["a", "b"])
    assert job.payload["config"] == LMConfig().model_dump(mode="json")  # the payload contains all defaults
    with job_queue.sessions() as session:
        experiment = session.get_one(Experiment, job.experiment_id)
        assert (experiment.type, experiment.name, experiment.tags) == ("lm", "first", ["a", "b"])
        kinds = session.scalars(select(Outbox.kind).order_by(Outbox.id)).all()
    assert kinds == ["job-update", "doorbell"]
    assert job_queue.history(job.id) == [("submitted", None, "pending")]


def test_a_rolled_back_submission_leaves_nothing(job_queue: JobQueue) -> None:
    with job_queue.sessions() as session:
        enqueue_job(session, NewJob(type=LM, payload={"config": {}}))
        session.rollback()
    for table in (Job, Experiment, JobEvent, Outbox):
        with job_queue.sessions() as session:
            assert session.scalars(select(table)).first() is None


def test_the_same_key_and_body_is_the_same_job(job_queue: JobQueue) -> None:
    assert job_queue.submit(idempotency_key="k") == job_queue.submit(idempotency_key="k")
    assert job_queue.sql("SELECT count(*) FROM jobs") == 1


def test_the_same_key_with_another_body_is_refused(job_queue: JobQueue) -> None:
    job_queue.submit(idempotency_key="k")
    with pytest.raises(InvalidInputError, match="another body") as caught:
        job_queue.submit(idempotency_key="k", priority=1)
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


def test_a_key_is_free_again_after_a_day(job_queue: JobQueue) -> None:
    first = job_queue.submit(idempotency_key="k")
    job_queue.sql("UPDATE jobs SET created_at = now() - interval '24 hours 1 second'")
    second = job_queue.submit(idempotency_key="k", priority=1)
    assert second != first
    job_queue.sql("UPDATE jobs SET created_at = now() - interval '25 hours' WHERE id = :id", id=second)
    assert job_queue.do(forget_idempotency_keys) == 1
    assert job_queue.job(second).idempotency_key is None


def test_twenty_clients_repeating_one_key_make_one_job(job_queue: JobQueue) -> None:
    gate = threading.Barrier(20)

    def client(_: int) -> str:
        gate.wait()
        return job_queue.submit(idempotency_key="same")

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(client, range(20)))) == 1
    assert job_queue.sql("SELECT count(*) FROM jobs") == 1
    assert job_queue.sql("SELECT count(*) FROM outbox WHERE kind = 'doorbell'") == 1


def test_clients_racing_with_two_bodies_under_one_key_make_one_job_and_one_error(job_queue: JobQueue) -> None:
    gate = threading.Barrier(12)

    def client(number: int) -> str:
        gate.wait()
        try:
            return job_queue.submit(idempotency_key="same", priority=number % 2)
        except InvalidInputError as error:
            return error.code

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(client, range(12)))
    job_id = job_queue.sql("SELECT id FROM jobs")
    assert job_queue.sql("SELECT count(*) FROM jobs") == 1
    assert job_queue.sql("SELECT count(*) FROM experiments") == 1
    winner = job_queue.job(job_id).priority
    assert answers == [job_id if number % 2 == winner else "idempotency_key_reused" for number in range(12)]


def test_the_experiment_is_named_by_time_commit_and_configuration(job_queue: JobQueue) -> None:
    job = job_queue.job(job_queue.submit())
    digest = hashlib.sha256(dump_yaml(LMConfig()).encode()).hexdigest()[:10]
    match = re.fullmatch(rf"(\d{{8}}-\d{{6}})-commit_(nogit|[0-9a-f]{{7,12}})-config_{digest}", job.experiment_id)
    assert match is not None
    assert datetime.strptime(match[1] + "+0000", "%Y%m%d-%H%M%S%z") == job.created_at.replace(microsecond=0)
    assert re.search(r"-rl_[0-9a-f]{10}$", job_queue.job(job_queue.submit("rl-training")).experiment_id)


def test_experiments_of_one_second_get_a_suffix(job_queue: JobQueue) -> None:
    # Within one transaction, now() always returns the same time, so the three ids contain the same second.
    with job_queue.sessions.begin() as session:
        new = NewJob(type=LM, payload={"config": {}})
        names = [enqueue_job(session, new).experiment_id for _ in range(3)]
    assert names[1:] == [f"{names[0]}-2", f"{names[0]}-3"]


def test_racing_submissions_of_one_second_get_different_experiments(job_queue: JobQueue) -> None:
    gate = threading.Barrier(8)

    def client(_: int) -> str:
        gate.wait()
        return job_queue.job(job_queue.submit()).experiment_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(client, range(8)))) == 8


def test_a_different_configuration_has_a_different_label() -> None:
    other = LMConfig.model_validate({"training": {"seed": 7}})
    assert name_suffix(LmTrainingPayload(config=LMConfig())) != name_suffix(LmTrainingPayload(config=other))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"priority": 101}, "priority 101"),
        ({"gpus": 2}, "gpus 2"),
        ({"not_before": datetime(2030, 1, 1)}, "time zone"),
        ({"name": ""}, "name"),
        ({"tags": ("x" * 201,)}, "tag"),
        ({"idempotency_key": "\x00"}, "Idempotency-Key"),
    ],
)
def test_jobs_that_could_never_run_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        NewJob(type=LM, payload={"config": {}}, **fields)


def test_the_error_of_an_unknown_key_names_its_place_and_the_nearest_valid_key() -> None:
    with pytest.raises(ConfigError) as caught:
        NewJob(type=LM, payload={"config": {"model": {"d_modl": 64}}})
    assert caught.value.errors == [
        {"location": "config.model.d_modl", "message": "unknown key 'd_modl'; did you mean 'd_model'?"}
    ]


def test_a_type_at_its_limit_is_refused_only_if_the_client_does_not_wait(job_queue: JobQueue) -> None:
    job_queue.submit()
    with pytest.raises(ConflictError) as caught:
        job_queue.submit(wait=False)
    assert caught.value.code == "concurrency_limit"
    job_queue.submit()
    job_queue.submit("rl-training", wait=False)


def test_resuming_an_ended_job_begins_at_its_checkpoint(job_queue: JobQueue) -> None:
    parent_id = job_queue.bring(S.CANCELLED, checkpoint=True)
    parent = job_queue.job(parent_id)
    child = job_queue.job(job_queue.submit(parent_id=parent_id))
    assert child.experiment_id != parent.experiment_id
    assert child.checkpoint_ref == parent.checkpoint_ref == child.payload["initial_checkpoint"]
    assert child.parent_id == parent_id


def test_resuming_needs_an_ended_parent_with_a_checkpoint(job_queue: JobQueue) -> None:
    with pytest.raises(NotFoundError):
        job_queue.submit(parent_id="job_none")
    live = job_queue.submit()
    with pytest.raises(ConflictError, match="pending"):
        job_queue.submit(parent_id=live)
    job_queue.do(request_cancel, live)
    with pytest.raises(InvalidInputError, match="no checkpoint"):
        job_queue.submit(parent_id=live)


def test_not_before_is_stored_in_utc(job_queue: JobQueue) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert job_queue.job(job_queue.submit(not_before=later)).not_before == later
    with job_queue.sessions() as session:
        assert session.scalar(text("SHOW timezone")) == "UTC"
