"""Limits on jobs: how many jobs of a type may run at the same time, and how many jobs may wait.

Each active or stale job occupies one slot of its type. The number of workers is another limit, because a worker (one
process per GPU) runs one job at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.errors import RateLimitedError
from common.jobs.sql import lock_waiting
from common.words import plural
from tidal_client.vocabulary import LEASED, JobStatus, JobType

TOO_MANY_WAITING: Final = "too_many_waiting"
RETRY_SECONDS = 60.0
"""The `Retry-After` of a refused submission in seconds. Usually a job begins or ends every few minutes, so a shorter
wait would rarely help."""
SERIALISE_BELOW = 256
"""Submissions are serialised when at most this number of further jobs may wait. With more room, concurrent submissions
cannot reach the limit, because each holds a database connection, and the server allows about 200."""


def type_limit(settings: Settings, job_type: str) -> int | None:
    """Return the concurrency limit of `job_type`; None if only the number of workers limits it (0 in the settings)."""
    if job_type == JobType.LM_TRAINING:
        limit = settings.lm_training_concurrency
    elif job_type == JobType.RL_TRAINING:
        limit = settings.rl_training_concurrency
    else:
        limit = settings.other_concurrency
    return limit or None


def leased_counts(session: Session, types: Iterable[str]) -> dict[str, int]:
    """Return {type: number of active and stale jobs}; types without such jobs are not included."""
    names = list(types)
    if not names:
        return {}
    query = select(Job.type, func.count()).where(Job.status.in_(LEASED), Job.type.in_(names)).group_by(Job.type)
    return dict(session.execute(query).all())


def free_slots(session: Session, settings: Settings, types: Iterable[str]) -> dict[str, int | None]:
    """Return {type: number of free slots, or None without a limit}; types at their limit are not included."""
    limits = {name: type_limit(settings, name) for name in types}
    leased = leased_counts(session, [name for name, limit in limits.items() if limit is not None])
    free = {name: None if limit is None else limit - leased.get(name, 0) for name, limit in limits.items()}
    return {name: slots for name, slots in free.items() if slots is None or slots > 0}


def require_queue_capacity(session: Session, settings: Settings) -> None:
    """Raise RateLimitedError `too_many_waiting` when `TIDAL_MAX_WAITING_JOBS` jobs already wait.

    Every pending job counts, including jobs with `notBefore` and jobs that returned to the queue. Only submissions are
    refused: a job can always return to the queue. Near the limit this function takes a lock until the end of the
    transaction, so that two submissions cannot both become the last waiting job. There is only one token, the
    administrator's, so the limit per token counts all jobs.
    """
    limit = settings.max_waiting_jobs
    if limit - _waiting(session) > SERIALISE_BELOW:
        return
    lock_waiting(session)
    waiting = _waiting(session)
    if waiting >= limit:
        raise RateLimitedError(
            f"{plural(waiting, 'job')} of this token already wait, the limit is {limit} (TIDAL_MAX_WAITING_JOBS); "
            "submit again when some of them have started, or cancel some",
            retry_after=RETRY_SECONDS,
            code=TOO_MANY_WAITING,
        )


def _waiting(session: Session) -> int:
    return session.scalar(select(func.count()).where(Job.status == JobStatus.PENDING)) or 0
