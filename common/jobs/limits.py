"""How many jobs of a type may hold a slot at once, and how many of them do; how many jobs may wait.

The other limit is the worker itself: a worker is one slot (one process per GPU), and a slot runs one job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.errors import RateLimitedError
from common.jobs.locks import lock_waiting
from common.jobs.payloads import JobType
from common.jobs.status import LEASED, JobStatus
from common.words import plural

TOO_MANY_WAITING: Final = "too_many_waiting"
RETRY_SECONDS = 60.0
"""When a submission that found no room to wait is worth a repetition: a job begins or ends every few minutes."""
NEAR = 256
"""Submissions are counted one after the other when so few places are left. Farther from the limit there cannot be
enough of them at once to reach it: each holds a connection of a server that has about 200."""


def type_limit(settings: Settings, job_type: str) -> int | None:
    """The concurrency limit of `job_type`; None: only the number of workers limits it (0 in the settings)."""
    if job_type == JobType.LM_TRAINING:
        limit = settings.lm_training_concurrency
    elif job_type == JobType.RL_TRAINING:
        limit = settings.rl_training_concurrency
    else:
        limit = settings.other_concurrency
    return limit or None


def leased_counts(session: Session, types: Iterable[str]) -> dict[str, int]:
    """Active and stale jobs per type; types without one are missing."""
    names = list(types)
    if not names:
        return {}
    query = select(Job.type, func.count()).where(Job.status.in_(LEASED), Job.type.in_(names)).group_by(Job.type)
    return dict(session.execute(query).all())


def open_slots(session: Session, settings: Settings, types: Iterable[str]) -> dict[str, int | None]:
    """Free places per type, None where there is no limit; types at their limit are missing."""
    limits = {name: type_limit(settings, name) for name in types}
    taken = leased_counts(session, [name for name, limit in limits.items() if limit is not None])
    free = {name: None if limit is None else limit - taken.get(name, 0) for name, limit in limits.items()}
    return {name: places for name, places in free.items() if places is None or places > 0}


def require_room_to_wait(session: Session, settings: Settings) -> None:
    """RateLimitedError `too_many_waiting` when as many jobs wait as may; otherwise one more may be inserted.

    Every pending job counts: those of `notBefore`, and those that went back to the queue, which are never refused
    themselves. Near the limit the caller is alone until its transaction ends, so that no two take the last place. One
    token exists so far, the administrator's, and all jobs are its.
    """
    limit = settings.max_waiting_jobs
    if limit - _waiting(session) > NEAR:
        return
    lock_waiting(session)
    waiting = _waiting(session)
    if waiting >= limit:
        raise RateLimitedError(
            f"{plural(waiting, 'job')} of this token wait already, and {limit} may (TIDAL_MAX_WAITING_JOBS); submit "
            "more when some of them have begun, or cancel some",
            retry_after=RETRY_SECONDS,
            code=TOO_MANY_WAITING,
        )


def _waiting(session: Session) -> int:
    return session.scalar(select(func.count()).where(Job.status == JobStatus.PENDING)) or 0
