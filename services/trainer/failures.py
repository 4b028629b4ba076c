"""Converts an exception of a job to an error code, a message for the user, and a kind that determines the retries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from common.errors import DivergedError, TidalError

_HOST_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


@dataclass(frozen=True)
class JobFailure:
    """The failure of a job. The trainer sends it to the supervisor as its last message."""

    code: str
    message: str
    kind: Literal["user", "cuda_oom", "diverged"] = "user"
    """Determines whether the job is retried, and how often."""


def classify_failure(error: BaseException) -> JobFailure:
    """Return the failure for an exception that a handler raised.

    It distinguishes: CUDA out of memory, divergence, errors that the user can fix, host out of memory, and internal
    errors.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return JobFailure(
            "cuda_out_of_memory",
            f"CUDA ran out of memory ({_first_line(error)}). Lower training.micro_batch_size or evaluation.batch_size, "
            "which does not change the result, or lower model.context_length or model.d_model. For a controller, lower "
            "ppo.num_envs or ppo.minibatch_size. Ending other processes that use the device also helps",
            "cuda_oom",
        )
    if isinstance(error, DivergedError):
        return JobFailure(error.code, error.message, "diverged")
    if isinstance(error, TidalError):
        return JobFailure(error.code, error.message)
    if isinstance(error, MemoryError) or any(text in str(error) for text in _HOST_MEMORY):
        return JobFailure(
            "out_of_memory",
            f"the machine ran out of memory ({_first_line(error)}). Lower training.micro_batch_size, "
            "evaluation.batch_size or the model's size; for a controller, lower ppo.num_envs",
        )
    return JobFailure(
        "internal_error", f"{type(error).__name__}: {_first_line(error)}; the job's log has the traceback"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
