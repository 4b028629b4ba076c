"""The database rejects every transition that the specification does not allow, even if plain SQL writes it.

Each UPDATE sets all other columns to valid values for the new status, so only the rule under test can reject it.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from common.jobs.queue import register_artifact, register_checkpoint, release_job, transition
from common.jobs.reaper import mark_stale
from common.jobs.signals import request_signal
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus, Signal

S = JobStatus

ACTIVE = ["provisioning", "starting", "running", "completing", "stopping"]
TERMINAL = ["completed", "failed", "cancelled"]
STATUSES = ["pending", *ACTIVE, "paused", "stale", *TERMINAL]
WRITERS = ["api", "claimer", "owner", "reaper", "unknown", None]
# The specification's transitions. `former` stands for the status that a stale job had before it became stale.
SPECIFICATION = """
api: pending → cancelled
claimer: pending → provisioning
owner: provisioning → starting → running → completing → completed
owner: running → paused
api: paused → pending
api: paused → cancelled
owner: active → stopping → cancelled
owner: active → pending
owner: active → failed
reaper: active → stale
owner: stale → former
reaper: stale → pending
reaper: stale → cancelled
reaper: stale → failed
"""


def specified(former: str | None) -> set[tuple[str, str, str | None]]:
    """Return the valid (from, to, writer) triples for a job whose status before stale is `former`."""
    words = {"active": ACTIVE, "former": [former or "nothing"]}
    triples: set[tuple[str, str, str | None]] = set()
    for line in SPECIFICATION.strip().splitlines():
        writer, way = line.split(": ")
        for sources, targets in pairwise(words.get(word, [word]) for word in way.split(" → ")):
            triples |= {(a, b, writer) for a, b in product(sources, targets) if a != b}
    return triples


def update(row: dict[str, Any], target: str, writer: str | None) -> str:
    """Return an UPDATE of the job to status `target` in which at most the transition itself is invalid."""
    leased = target in ACTIVE or target == "stale"
    desired = row["desired_state"]
    if target in ("stopping", "cancelled"):
        desired = "stop"
    elif target == "paused" and desired == "run":
        desired = "pause"
    lease_end = "lease_expires_at" if target == "stale" and row["lease_owner"] else "now() + interval '1 minute'"
    values = {
        "status": f"'{target}'",
        "moved_by": f"'{writer}'" if writer else "NULL",
        "desired_state": f"'{desired}'",
        "lease_owner": "coalesce(lease_owner, 'worker-9')" if leased else "NULL",
        "lease_expires_at": lease_end if leased else "NULL",
        "status_before_stale": "status" if target == "stale" else "NULL",
        "stale_at": "now()" if target == "stale" else "NULL",
        "finished_at": "now()" if target in TERMINAL else "NULL",
        "error_code": "'user_error'" if target == "failed" else "error_code",
        "checkpoint_ref": "coalesce(checkpoint_ref, 'e/checkpoints/step-5')",
    }
    if (row["status"], target) == ("pending", "provisioning"):
        values |= {"attempt": "attempt + 1", "started_at": "now()"}
    return "UPDATE jobs SET " + ", ".join(f"{name} = {value}" for name, value in values.items()) + " WHERE id = :id"


def refusal(session: Session, statement: str, job_id: str) -> str | None:
    """Execute `statement` and roll it back; return the database's error text, or None if there was no error."""
    step = session.begin_nested()
    try:
        assert session.scalar(text(statement + " RETURNING moved_by IS NULL"), {"id": job_id})
    except IntegrityError as error:
        return str(error.orig).splitlines()[0]
    finally:
        step.rollback()
    return None


def roomy(job_queue: JobQueue) -> JobQueue:
    return JobQueue(job_queue.sessions, job_queue.settings.model_copy(update={"lm_training_concurrency": 50}))


def test_every_pair_of_statuses_and_writer_is_allowed_or_refused_as_specified(job_queue: JobQueue) -> None:
    job_queue = roomy(job_queue)
    jobs = [job_queue.bring(S(status)) for status in STATUSES if status not in ("stale", "pending")]
    formers = [job_queue.bring(S(status)) for status in ACTIVE]
    for job_id in formers:
        job_queue.lapse(job_id)
    job_queue.do(mark_stale)
    job_queue.sql("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE lease_owner IS NOT NULL")
    jobs.append(job_queue.bring(S.PENDING))
    wrong: list[str] = []
    reasons: set[str] = set()
    seen: set[str] = set()
    with job_queue.sessions() as session:
        for job_id in jobs + formers:
            row = dict(session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id}).mappings().one())
            seen.add(row["status"])
            allowed = specified(row["status_before_stale"])
            for target, writer in product(STATUSES, WRITERS):
                if target == row["status"]:
                    continue
                why = refusal(session, update(row, target, writer), job_id)
                if ((row["status"], target, writer) in allowed) != (why is None):
                    wrong.append(f"{row['status']} → {target} by {writer}: {why or 'accepted'}")
                elif why is not None:
                    reasons.add(why.split(" ", 2)[2].split(" from ")[0])
    assert wrong == []
    assert seen == set(STATUSES)
    assert reasons == {
        "may not be moved",
        "changes its status: name the writer in the UPDATE, moved_by: api, claimer, owner or reaper",
        *(f"is {status} and never moves again" for status in TERMINAL),
    }


MOVE = "UPDATE jobs SET moved_by = "
STALE = "'reaper', status = 'stale', status_before_stale = 'running', stale_at = now()"


@pytest.mark.parametrize(
    ("status", "statement", "reason"),
    [
        (S.RUNNING, MOVE + STALE, "is leased until"),
        (S.RUNNING, "UPDATE jobs SET attempt = 2", "a claim adds 1"),
        (S.RUNNING, "UPDATE jobs SET attempt = 0", "a claim adds 1"),
        (S.RUNNING, "UPDATE jobs SET lease_owner = 'thief'", "another owner needs a claim"),
        (S.RUNNING, MOVE + "'owner', status = 'completing', attempt = 2", "a claim adds 1"),
        (S.RUNNING, MOVE + "'owner', status = 'completing', lease_owner = 'thief'", "another owner"),
        (S.RUNNING, MOVE + "'owner', status = 'completing', lease_owner = NULL", "ck_jobs_lease"),
        (S.RUNNING, "UPDATE jobs SET type = 'rl-training'", "keeps its id, type and experiment"),
        (S.RUNNING, "UPDATE jobs SET id = 'job_other'", "keeps its id, type and experiment"),
        (S.STOPPING, "UPDATE jobs SET desired_state = 'run'", "would be less"),
        (S.STOPPING, "UPDATE jobs SET desired_state = 'complete'", "would be less"),
        (S.RUNNING, "UPDATE jobs SET cancel_requested = true", "ck_jobs_cancel"),
        (S.RUNNING, "UPDATE jobs SET checkpoint_step = 3", "ck_jobs_checkpoint"),
        (S.RUNNING, "UPDATE jobs SET started_at = NULL", "ck_jobs_started"),
        (S.PENDING, "UPDATE jobs SET not_before = now() + interval '1 h'; " + MOVE + "'claimer',"
         " status = 'provisioning', attempt = 1, lease_owner = 'w', lease_expires_at = now() + interval '1 min',"
         " started_at = now()", "may not start before"),
        (S.PENDING, MOVE + "'claimer', status = 'provisioning', attempt = 1, lease_owner = 'w',"
         " lease_expires_at = now(), started_at = now()", "ends in the future"),
        (S.PENDING, MOVE + "'claimer', status = 'provisioning', attempt = 2, lease_owner = 'w',"
         " lease_expires_at = now() + interval '1 min', started_at = now()", "a claim adds 1"),
        (S.STALE, MOVE + "'owner', status = 'provisioning', status_before_stale = NULL, stale_at = NULL",
         "ends in the future"),
    ],
)  # fmt: skip
def test_guards_of_one_row(job_queue: JobQueue, status: JobStatus, statement: str, reason: str) -> None:
    job_queue.bring(status)
    parts = statement.split("; ")
    for part in parts[:-1]:
        job_queue.sql(part)
    with pytest.raises(IntegrityError, match=reason):
        job_queue.sql(parts[-1])


def test_a_job_without_checkpoints_cannot_be_asked_to_pause(job_queue: JobQueue) -> None:
    job_queue.submit("evaluation")
    with pytest.raises(IntegrityError, match="ck_jobs_resumable"):
        job_queue.sql("UPDATE jobs SET desired_state = 'pause'")


def test_a_pause_can_be_withdrawn(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(request_signal, job_id, Signal.PAUSE)
    job_queue.sql("UPDATE jobs SET desired_state = 'run'")
    assert job_queue.job(job_id).desired_state == "run"


COPY = (
    "INSERT INTO jobs (id, type, queue, payload, experiment_id, status, attempt)"
    " SELECT 'job_copy', type, queue, payload, {}, {}, {} FROM jobs"
)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (("'e2'", "'provisioning'", "0"), "not pending at 0"),
        (("'e2'", "'completed'", "0"), "not pending at 0"),
        (("'e2'", "'pending'", "1"), "not pending at 0"),
        (("experiment_id", "'pending'", "0"), "uq_jobs_experiment_id"),
    ],
)
def test_a_job_begins_pending_with_its_own_experiment(
    job_queue: JobQueue, values: tuple[str, ...], reason: str
) -> None:
    job_queue.submit()
    job_queue.sql("INSERT INTO experiments (id, type) VALUES ('e2', 'lm')")
    with pytest.raises(IntegrityError, match=reason):
        job_queue.sql(COPY.format(*values))
    job_queue.sql(COPY.format("'e2'", "'pending'", "0"))


@pytest.mark.parametrize("statement", ["UPDATE job_events SET event = 'x'", "DELETE FROM job_events"])
def test_events_stay_as_they_were_written(job_queue: JobQueue, statement: str) -> None:
    job_id = job_queue.bring(S.RUNNING)
    before = job_queue.history(job_id)
    with pytest.raises(IntegrityError, match="stays as it was written"):
        job_queue.sql(statement)
    assert job_queue.history(job_id) == before
    job_queue.sql("DELETE FROM experiments")  # this also deletes the job and its events
    assert job_queue.sql("SELECT count(*) FROM job_events") == 0


def test_only_the_owning_attempt_registers_files(job_queue: JobQueue) -> None:
    job_id = job_queue.bring(S.RUNNING)
    job_queue.do(register_checkpoint, job_id, 1, name="step-5", step=5, sha256="01")
    job_queue.do(register_artifact, job_id, 1, name="model.pth", kind="model", sha256="01")
    insert = (
        "INSERT INTO checkpoints (experiment_id, job_id, attempt, kind, name)"
        " SELECT experiment_id, id, {}, 'model', 'other.pth' FROM jobs"
    )
    job_queue.do(release_job, job_id, 1)
    with pytest.raises(IntegrityError, match="does not own it"):
        job_queue.sql(insert.format(1))  # no attempt owns the job now
    assert job_queue.claim("worker-2") is not None
    job_queue.do(transition, job_id, 2, S.STARTING)
    for statement in (
        insert.format(1),
        insert.format(3),
        # This row belongs to attempt 1, which no longer owns the job.
        "UPDATE checkpoints SET sha256 = '66' WHERE name = 'model.pth'",
        "UPDATE checkpoints SET attempt = 3",
    ):
        with pytest.raises(IntegrityError, match="does not own it"):
            job_queue.sql(statement)
    job_queue.do(register_artifact, job_id, 2, name="model.pth", kind="model", sha256="02")
    rows = job_queue.rows("SELECT name, attempt, sha256 FROM checkpoints ORDER BY name")
    assert rows == [("checkpoints/step-5", 1, "01"), ("model.pth", 2, "02")]
    job_queue.sql("DELETE FROM checkpoints WHERE kind = 'training'")  # pruning of checkpoints does the same
