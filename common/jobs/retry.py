"""Decides whether a job is retried after an attempt failed.

Uses neither the database nor a clock. There are two separate retry budgets. Infrastructure faults (`infra_restarts`)
are a lost worker, a kill by the kernel because memory ran out, and a trainer without progress; a registered checkpoint
with a new highest step restores the whole budget. Faults of the user's code (`user_failures`) are Python errors and
CUDA out of memory. The drain of a worker, which ends its attempts on purpose, uses up neither budget. A training that
diverged is not retried, because the same steps would diverge again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from common.backoff import doubled
from common.config import Settings
from common.db import Job
from common.errors import DivergedError


class Fault(StrEnum):
    """The reason why an attempt ended. The value is the `error_code` of a job that fails for this reason."""

    DRAIN = "drain"
    WORKER_LOST = "worker_lost"
    OOM_KILLED = "out_of_memory"
    NO_PROGRESS = "no_progress"
    USER_ERROR = "user_error"
    CUDA_OOM = "cuda_out_of_memory"
    DIVERGED = DivergedError.code


INFRASTRUCTURE = frozenset({Fault.WORKER_LOST, Fault.OOM_KILLED, Fault.NO_PROGRESS})
USER = frozenset({Fault.USER_ERROR, Fault.CUDA_OOM})


@dataclass(frozen=True)
class RetryDecision:
    """The consequence of a fault for the job, with the new values of the fault counters.

    If `retry` is true, the job returns to the queue and may start after `delay_seconds`. Otherwise it has failed.
    """

    retry: bool
    infra_restarts: int
    user_failures: int
    delay_seconds: float = 0.0


def decide_retry(
    fault: Fault, *, infra_restarts: int, user_failures: int, max_infra_restarts: int, max_user_failures: int
) -> RetryDecision:
    """Decide whether to retry after `fault`, given the values of the fault counters before it.

    The job fails at the `max_infra_restarts`-th infrastructure fault without a new checkpoint, and at the first user
    failure beyond `max_user_failures`.
    """
    if fault in INFRASTRUCTURE:
        infra_restarts += 1
        return RetryDecision(
            infra_restarts < max_infra_restarts, infra_restarts, user_failures, backoff(infra_restarts)
        )
    if fault in USER:
        user_failures += 1
        return RetryDecision(user_failures <= max_user_failures, infra_restarts, user_failures, backoff(user_failures))
    if fault is Fault.DIVERGED:
        return RetryDecision(False, infra_restarts, user_failures + 1)
    return RetryDecision(True, infra_restarts, user_failures)


def decide_job_retry(fault: Fault, job: Job, settings: Settings) -> RetryDecision:
    """Decide whether to retry `job` after `fault`, with the budgets of the settings."""
    return decide_retry(
        fault,
        infra_restarts=job.infra_restarts,
        user_failures=job.user_failures,
        max_infra_restarts=settings.max_infra_restarts,
        max_user_failures=settings.max_user_failures,
    )


def backoff(count: int) -> float:
    """Return the delay in seconds before the attempt that follows fault number `count`: 0, 5, 10, 20 … at most 60."""
    return 0.0 if count <= 1 else doubled(5.0, 60.0, count - 2)
