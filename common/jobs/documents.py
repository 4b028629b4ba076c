"""Converts a job to the JSON object of `job-update` events: camelCase keys, times in ISO 8601 UTC.

The payload and the idempotency columns are not included.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from common.db.models import Job
from tidal_client.vocabulary import utc_text


def job_document(job: Job) -> dict[str, Any]:
    """Return the fields of `job` that clients receive, without its payload."""
    return {
        "id": job.id,
        "type": job.type,
        "name": job.name,
        "tags": list(job.tags),
        "status": job.status,
        "desiredState": job.desired_state,
        "cancelRequested": job.cancel_requested,
        "attempt": job.attempt,
        "priority": job.priority,
        "queue": job.queue,
        "gpus": job.gpus,
        "experimentId": job.experiment_id,
        "parentId": job.parent_id,
        "worker": job.lease_owner,
        "statusBeforeStale": job.status_before_stale,
        "infraRestarts": job.infra_restarts,
        "userFailures": job.user_failures,
        "checkpointRef": job.checkpoint_ref,
        "checkpointStep": job.checkpoint_step,
        "progress": {
            "step": job.progress_step,
            "totalSteps": job.progress_total_steps,
            "etaSeconds": job.progress_eta_seconds,
            "phase": job.progress_phase,
        },
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "notBefore": _optional(job.not_before),
        "createdAt": utc_text(job.created_at),
        "updatedAt": utc_text(job.updated_at),
        "startedAt": _optional(job.started_at),
        "finishedAt": _optional(job.finished_at),
    }


def _optional(time: datetime | None) -> str | None:
    return None if time is None else utc_text(time)
