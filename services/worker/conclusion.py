"""How an attempt's ending becomes the row's status. Called when the child is gone; the wish in the row has the last
word (`common.jobs.ownership`): stop beats everything, a withdrawn pause goes back to the queue.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from common.config import Settings
from common.jobs.queue import complete, fail, pause, release
from services.worker.exit_status import Ending
from tidal_client.vocabulary import JobStatus


def conclude(session: Session, job_id: str, attempt: int, ending: Ending, settings: Settings) -> JobStatus:
    """Write the end of the attempt and return the status that was really written.

    Raises LeaseLostError when another attempt owns the job.
    """
    if ending.fault is not None:
        return fail(session, job_id, attempt, ending.fault, ending.message, code=ending.code, settings=settings)
    if ending.killed is not None:
        return release(session, job_id, attempt, reason=ending.killed.value, details={"killed": True})
    if ending.outcome == "completed":
        return complete(session, job_id, attempt)
    if ending.outcome == "paused":
        return pause(session, job_id, attempt)
    return release(session, job_id, attempt, reason=ending.outcome or "unknown")
