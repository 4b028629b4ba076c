"""The functions that write jobs: they submit and claim a job, and record what the owner of the claim did.

    with sessions.begin() as session:
        job = claim_job(session, "training", "worker@host", settings)
    …
    with sessions.begin() as session:
        complete_job(session, job.id, job.attempt)

The implementations are in `submission`, `claiming`, `ownership` and `registry`. The requests of users are in `signals`,
and the renewal of leases is in `lease`.
"""

from common.jobs.claiming import claim_job
from common.jobs.ownership import (
    complete_job,
    fail_job,
    pause_job,
    record_event,
    record_measurement,
    record_progress,
    release_job,
    transition,
)
from common.jobs.registry import (
    keep_checkpoints,
    register_analysis,
    register_artifact,
    register_checkpoint,
    withdraw_checkpoints,
)
from common.jobs.submission import NewJob, enqueue_job

__all__ = [
    "NewJob",
    "claim_job",
    "complete_job",
    "enqueue_job",
    "fail_job",
    "keep_checkpoints",
    "pause_job",
    "record_event",
    "record_measurement",
    "record_progress",
    "register_analysis",
    "register_artifact",
    "register_checkpoint",
    "release_job",
    "transition",
    "withdraw_checkpoints",
]
