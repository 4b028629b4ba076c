"""The queue as its users see it: submit, claim, and what the owner of a claim writes.

    with sessions.begin() as session:
        job = claim(session, "training", "worker@host", settings)
    …
    with sessions.begin() as session:
        complete(session, job.id, job.attempt)

The parts live in submission, claiming, ownership and registry; signals of users in signals, leases in lease.
"""

from common.jobs.claiming import claim
from common.jobs.ownership import complete, fail, pause, record_event, record_progress, release, transition
from common.jobs.registry import (
    keep_checkpoints,
    register_artifact,
    register_checkpoint,
    save_analysis,
    withdraw_checkpoints,
)
from common.jobs.submission import NewJob, submit

__all__ = [
    "NewJob",
    "claim",
    "complete",
    "fail",
    "keep_checkpoints",
    "pause",
    "record_event",
    "record_progress",
    "register_artifact",
    "register_checkpoint",
    "release",
    "save_analysis",
    "submit",
    "transition",
    "withdraw_checkpoints",
]
