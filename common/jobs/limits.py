"""How many jobs of a type may hold a slot at once, and how many of them do."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from common.config import Settings
from common.db import Job
from common.jobs.payloads import JobType
from common.jobs.status import LEASED


def type_limit(settings: Settings, job_type: str) -> int:
    """The concurrency limit of `job_type`."""
    if job_type == JobType.LM_TRAINING:
        return settings.lm_training_concurrency
    if job_type == JobType.RL_TRAINING:
        return settings.rl_training_concurrency
    return settings.other_concurrency


def leased_counts(session: Session, types: Iterable[str]) -> dict[str, int]:
    """Active and stale jobs per type; types without one are missing."""
    query = select(Job.type, func.count()).where(Job.status.in_(LEASED), Job.type.in_(list(types))).group_by(Job.type)
    return dict(session.execute(query).all())


def open_slots(session: Session, settings: Settings, types: Iterable[str]) -> dict[str, int]:
    """Free places per type; types at their limit are missing."""
    names = list(types)
    taken = leased_counts(session, names)
    free = {name: type_limit(settings, name) - taken.get(name, 0) for name in names}
    return {name: count for name, count in free.items() if count > 0}
