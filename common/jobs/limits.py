"""How many jobs of a type may hold a slot at once, and how many of them do.

The other limit is the worker itself: a worker is one slot (one process per GPU), and a slot runs one job.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.jobs.payloads import JobType
from common.jobs.status import LEASED


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
