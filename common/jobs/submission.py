"""Submits a job: inserts its experiment, job, event and outbox rows in one transaction.

All checks that do not need the artifact store are made here. An Idempotency-Key is kept for 24 h. A second submission
with the same key and body returns the existing job; with a different body, it is refused (422). A caller with a key
therefore calls `submitted_before` first, and then, only if that returned None, `enqueue_job` in the same transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from common.access import Actor
from common.config import Settings, get_settings
from common.db import Job
from common.errors import ConflictError, InvalidInputError, NotFoundError
from common.jobs import outbox
from common.jobs.changes import write_event
from common.jobs.experiments import create_experiment
from common.jobs.limits import leased_counts, require_queue_capacity, type_limit
from common.jobs.payloads import QUEUES, JobPayload, LmTrainingPayload, RlTrainingPayload, check_payload
from common.jobs.sql import lock_idempotency_key, lock_type, now_minus
from common.words import plural, with_article
from tidal_client.vocabulary import JOB_ID, RESUMABLE, CheckpointMode, JobStatus, JobType, new_id

IDEMPOTENCY_SECONDS = 24 * 3600.0
MAX_TAGS = 20
"""Largest number of tags of a job or an experiment."""
MAX_TAG = 64
"""Largest number of characters of a tag."""
MAX_TEXT = 200
"""Largest number of characters of a name or an Idempotency-Key."""


@dataclass(frozen=True)
class NewJob:
    """A job to submit. The constructor raises InvalidInputError or ConfigError if the fields are invalid."""

    type: JobType
    payload: JobPayload | Mapping[str, Any]
    """The payload. The constructor validates it with the pydantic model of the job type and fills in the defaults."""
    name: str | None = None
    tags: tuple[str, ...] = ()
    priority: int = 0
    """Priority from -100 to 100; jobs with a higher priority are claimed first."""
    gpus: int = 1
    not_before: datetime | None = None
    """Earliest time at which the job may be claimed, with a time zone; None if it may be claimed at once."""
    parent_id: str | None = None
    """The ended job to resume from; this job starts from its newest checkpoint, or from `resume_checkpoint`."""
    resume_checkpoint: str | None = None
    """With `parent_id`, the checkpoint to start from instead of the newest: `<experiment id>/checkpoints/<name>`. The
    caller checks that it exists and belongs to the parent's experiment."""
    wait: bool = True
    """If false, the job is refused with ConflictError when the concurrency limit of its type is reached. If true, it
    waits."""
    prediction: Mapping[str, Any] | None = None
    """The prediction to store with the job. It is not part of `digest`."""
    idempotency_key: str | None = None
    body_hash: str | None = None
    """Hexadecimal SHA-256 of the request body; if None, `digest` is computed from the other fields."""
    actor: Actor | None = None
    """The token that submits the job. It is not part of `digest`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", _job_type(self.type))
        object.__setattr__(self, "payload", check_payload(self.type, self.payload))
        if not -100 <= self.priority <= 100:
            raise InvalidInputError(f"priority {self.priority} is outside -100 … 100")
        if self.gpus != 1:
            raise InvalidInputError(f"gpus {self.gpus} is not supported; use 1")
        if self.not_before is not None and self.not_before.tzinfo is None:
            raise InvalidInputError("notBefore needs a time zone, such as 2030-01-01T00:00:00Z")
        if len(self.tags) > MAX_TAGS:
            raise InvalidInputError(f"{len(self.tags)} tags are more than the limit of {MAX_TAGS}")
        for field, text, limit in (
            ("name", self.name, MAX_TEXT),
            ("Idempotency-Key", self.idempotency_key, MAX_TEXT),
            *(("tag", tag, MAX_TAG) for tag in self.tags),
        ):
            if text is not None and (not 1 <= len(text) <= limit or "\x00" in text):
                raise InvalidInputError(f"{field} {text[:40]!r} must have 1 to {limit} characters and no NUL")

    @property
    def checked_payload(self) -> JobPayload:
        """The validated payload."""
        assert isinstance(self.payload, JobPayload)
        return self.payload

    def digest(self) -> str:
        """Return `body_hash`, or a SHA-256 of the other fields. Submissions with one key must have the same digest."""
        if self.body_hash is not None:
            return self.body_hash
        body = {
            "type": self.type,
            "payload": self.checked_payload.model_dump(mode="json"),
            "name": self.name,
            "tags": list(self.tags),
            "priority": self.priority,
            "gpus": self.gpus,
            "not_before": self.not_before.isoformat() if self.not_before else None,
            "parent_id": self.parent_id,
            "resume_checkpoint": self.resume_checkpoint,
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def enqueue_job(session: Session, new: NewJob, settings: Settings | None = None) -> Job:
    """Insert a pending job with its experiment, event and outbox rows (update and notification); return the job.

    With an Idempotency-Key, the caller must first call `submitted_before`, which locks the key, in the same
    transaction. Raises InvalidInputError (parent without checkpoint), NotFoundError (no such parent), ConflictError
    (`wait=False` and the type is at its limit, or the parent is still active), RateLimitedError (the limit of waiting
    jobs is reached). The caller commits.
    """
    payload = new.checked_payload
    checkpoint_ref = None
    if new.parent_id is not None:
        newest = _parent_checkpoint(session, new.parent_id, new.type, needed=new.resume_checkpoint is None)
        checkpoint_ref = new.resume_checkpoint or newest
        if isinstance(payload, LmTrainingPayload | RlTrainingPayload) and checkpoint_ref != payload.initial_checkpoint:
            changes: dict[str, Any] = {"initial_checkpoint": checkpoint_ref}
            if isinstance(payload, LmTrainingPayload):
                changes["checkpoint_mode"] = CheckpointMode.CONTINUE  # even if the request changes the text
            payload = payload.model_copy(update=changes)
    if not new.wait:
        _require_free_slot(session, new.type, settings or get_settings())
    require_queue_capacity(session, settings or get_settings())
    experiment_id = create_experiment(session, payload, name=new.name, tags=new.tags)
    job = session.scalars(
        insert(Job)
        .values(
            id=new_id(JOB_ID),
            type=new.type,
            queue=QUEUES[new.type],
            payload=payload.model_dump(mode="json"),
            name=new.name,
            tags=list(new.tags),
            priority=new.priority,
            gpus=new.gpus,
            experiment_id=experiment_id,
            token_id=None if new.actor is None else new.actor.token_id,
            parent_id=new.parent_id,
            checkpoint_ref=checkpoint_ref,
            not_before=new.not_before,
            prediction=None if new.prediction is None else dict(new.prediction),
            idempotency_key=new.idempotency_key,
            idempotency_hash=new.digest() if new.idempotency_key is not None else None,
        )
        .returning(Job)
    ).one()
    details = {"parent": new.parent_id} if new.parent_id else {}
    if new.actor is not None:
        details |= new.actor.event_details()
    write_event(session, job, "submitted", actor="api", source=None, target=JobStatus.PENDING, details=details)
    outbox.add_job_update(session, job, "submitted")
    outbox.add_notifications(session, job.queue)
    return job


def forget_idempotency_keys(session: Session) -> int:
    """Clear the Idempotency-Keys that are older than 24 h; return the number of cleared keys."""
    old = (
        update(Job)
        .where(Job.idempotency_key.is_not(None), Job.created_at < now_minus(IDEMPOTENCY_SECONDS))
        .values(idempotency_key=None, idempotency_hash=None)
        .returning(Job.id)
    )
    return len(session.scalars(old, execution_options={"synchronize_session": False}).all())


def _job_type(value: str) -> JobType:
    try:
        return JobType(value)
    except ValueError:
        raise InvalidInputError(f"type {value!r} is not one of {', '.join(JobType)}") from None


def submitted_before(session: Session, key: str, digest: str) -> Job | None:
    """Return the job that `key` created in the last 24 h, or None. Locks the key until the transaction ends.

    Raises InvalidInputError when the digest (`NewJob.digest`) of the body from which the job was created is not
    `digest`.
    """
    lock_idempotency_key(session, key)
    fresh = Job.created_at >= now_minus(IDEMPOTENCY_SECONDS)
    found = session.execute(select(Job, fresh).where(Job.idempotency_key == key)).one_or_none()
    if found is None:
        return None
    job, is_fresh = found
    if not is_fresh:
        session.execute(update(Job).where(Job.id == job.id).values(idempotency_key=None, idempotency_hash=None))
        return None
    if job.idempotency_hash != digest:
        raise InvalidInputError(
            f"Idempotency-Key {key!r} was used for job {job.id} with another body; use a new key",
            code="idempotency_key_reused",
        )
    return job


def _parent_checkpoint(session: Session, parent_id: str, job_type: JobType, *, needed: bool) -> str | None:
    """Return the newest checkpoint of the job `parent_id`, or None if it has none.

    Raises NotFoundError without such a job, ConflictError if the job has not ended, and InvalidInputError if its type
    does not fit or a checkpoint is `needed` but missing.
    """
    parent = session.get(Job, parent_id)
    if parent is None:
        raise NotFoundError(f"resumeFrom: there is no job {parent_id!r}")
    if parent.finished_at is None:
        raise ConflictError(
            f"resumeFrom: job {parent_id} is {parent.status}, but must have ended; send a paused job the signal resume",
            code="job_is_live",
        )
    if parent.type != job_type or job_type not in RESUMABLE:
        raise InvalidInputError(
            f"resumeFrom: {with_article(job_type)} job cannot resume from {with_article(parent.type)} job"
        )
    if parent.checkpoint_ref is None and needed:
        raise InvalidInputError(
            f"resumeFrom: job {parent_id} has no checkpoint to resume from; submit a new job without resumeFrom, or "
            "name a checkpoint as <experiment id>/checkpoints/<name>"
        )
    return parent.checkpoint_ref


def _require_free_slot(session: Session, job_type: JobType, settings: Settings) -> None:
    limit = type_limit(settings, job_type)
    if limit is None:
        return
    lock_type(session, job_type)
    waiting = session.scalar(select(func.count()).where(Job.type == job_type, Job.status == JobStatus.PENDING))
    ahead = leased_counts(session, [job_type]).get(job_type, 0) + (waiting or 0)
    if ahead >= limit:
        raise ConflictError(
            f"{plural(ahead, 'job')} of type {job_type} already run or wait, and the limit is {limit}; omit "
            "queue=false to queue the job",
            code="concurrency_limit",
        )
