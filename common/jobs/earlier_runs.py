"""Returns the measured time and memory of completed trainings, to predict those of later ones of the same shape."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from common.db import Job
from tidal_client.vocabulary import JobStatus, JobType
from tidal_client.wire.prediction import TrainingMeasurement

NEWEST = 200
"""Number of the newest completed trainings that are searched."""


def earlier_runs(session: Session, shape: str, machines: Collection[str]) -> list[TrainingMeasurement]:
    """Return the measurements of trainings with this shape on machines of these kinds, newest first."""
    newest = (
        select(Job.measurement, Job.finished_at)
        .where(Job.type == JobType.LM_TRAINING, Job.status == JobStatus.COMPLETED)
        .order_by(Job.finished_at.desc())
        .limit(NEWEST)
        .subquery()
    )
    query = (
        select(newest.c.measurement)
        .where(newest.c.measurement["shape"].astext == shape, newest.c.measurement["machine"].astext.in_(machines))
        .order_by(newest.c.finished_at.desc())
    )
    found = []
    for values in session.scalars(query):
        try:
            found.append(TrainingMeasurement.model_validate(values))
        except ValidationError:
            continue  # another version of Tidal wrote it
    return found
