"""Classifies how an attempt ended: with a reported outcome, by a kill, or with a fault.

The outcomes are completed, paused, stopped and drained. The trainer reports the outcome, which counts only if the exit
status of the trainer is 0. The kind of fault determines how often the job is retried. This module uses no clock and no
database. Processes that the kernel killed are counted in `services.worker.oom_kills`; the job's row is written in
`services.worker.supervisor`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from common.child.launch import describe_exit
from common.child.protocol import EXIT_FINISHED, Failed, Finished
from common.jobs.retry import Fault

MAX_MESSAGE = 2000


class KillReason(StrEnum):
    """The reason for which the supervisor killed the trainer."""

    STOP_GRACE = "stop_grace"
    """The trainer did not obey a stop request in time."""
    DRAIN = "drain"
    """The worker had to shut down."""
    NO_PROGRESS = "no_progress"
    """The trainer was alive but made no progress for too long."""
    LEASE_LOST = "lease_lost"
    """The job may belong to another attempt now."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. Exactly one of `outcome`, `fault` and `killed` is set."""

    outcome: str | None = None
    """The outcome that the trainer reported: completed, paused, stopped or drained."""
    fault: Fault | None = None
    code: str = ""
    """The error code of the job; empty without a fault."""
    message: str = ""
    """The error message of the job; empty without a fault."""
    killed: KillReason | None = None
    """The reason for which the supervisor killed the trainer. For NO_PROGRESS, `fault` is set instead."""


def classify(
    status: int,
    *,
    finished: Finished | None,
    failed: Failed | None,
    killed: KillReason | None,
    oom_kills: int,
    log_tail: str,
) -> Ending:
    """Return how an attempt ended, given the exit status of its trainer (negative: signal).

    `oom_kills` is the number of processes that the kernel killed during the attempt because memory ran out.
    """
    if finished is not None and status == EXIT_FINISHED:
        return Ending(outcome=finished.outcome)
    if killed is KillReason.NO_PROGRESS:
        message = "The trainer was killed because it made no progress for far longer than a micro-batch takes."
        return Ending(fault=Fault.NO_PROGRESS, code=Fault.NO_PROGRESS.value, message=message)
    if killed is not None:
        return Ending(killed=killed)
    if failed is not None:
        fault = _FAULTS[failed.kind]
        code = failed.code if fault is Fault.USER_ERROR else fault.value
        return Ending(fault=fault, code=code, message=failed.message[:MAX_MESSAGE])
    if status == -signal.SIGKILL and oom_kills > 0:
        message = (
            "The kernel killed the trainer because memory ran out. Lower training.micro_batch_size, "
            "model.context_length or the size of the model, or use a machine with more memory."
        )
        return Ending(fault=Fault.OOM_KILLED, code=Fault.OOM_KILLED.value, message=message)
    if status < 0:
        message = f"The trainer was ended by {describe_exit(status)}."
        return Ending(fault=Fault.WORKER_LOST, code="trainer_killed", message=message)
    message = f"The trainer exited with status {status} without a message. Its log ends with:\n{log_tail}"
    return Ending(fault=Fault.USER_ERROR, code="trainer_exited", message=message[:MAX_MESSAGE])


_FAULTS = {"user": Fault.USER_ERROR, "cuda_oom": Fault.CUDA_OOM, "diverged": Fault.DIVERGED}
