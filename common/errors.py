"""The exception tree of Tidal: the errors that a client can receive too (`tidal_client.errors`), and internal ones.

Every error that a user can see derives from `TidalError` and has a stable `code` (snake_case) and an HTTP `status`. The
api turns it into a problem document in one place; the CLI prints its `message` and exits with status 1. Programming
errors are ordinary exceptions outside this tree and appear in the log with a traceback.
"""

from __future__ import annotations

import math

from tidal_client.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    TidalError,
    UnauthorizedError,
    UnavailableError,
)

__all__ = [
    "MOST_FINDINGS",
    "CheckpointError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "DiskFullError",
    "DivergedError",
    "ForbiddenError",
    "InvalidInputError",
    "JobFailed",
    "LeaseLostError",
    "NotFoundError",
    "RateLimitedError",
    "StorageError",
    "TidalError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "omitted_findings",
    "require_finite",
]

MOST_FINDINGS = 50
"""Largest number of findings that one error lists, because a request can contain any number of unknown keys."""


def omitted_findings(count: int) -> dict[str, str]:
    """Return the last finding of a shortened list. It gives the number of findings that the error does not list."""
    return {"location": "", "message": f"{count:,} more findings are left out"}


class ConfigError(TidalError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, value out of range, unreadable file."""

    code = "invalid_config"
    status = 422


class TooLargeError(TidalError):
    """A request or an upload with more bytes than the operator allows."""

    code = "body_too_large"
    status = 413


class DataError(TidalError, ValueError):
    """A corpus or token cache that cannot be used; the message explains how to repair it."""

    code = "invalid_data"
    status = 422


class CheckpointError(TidalError, ValueError):
    """A checkpoint that is damaged, unsafe to load or does not fit the model."""

    code = "invalid_checkpoint"
    status = 422


class DivergedError(TidalError, ArithmeticError):
    """A training has diverged: a loss, a gradient norm or a weight is not finite.

    `quantity` names the number in words, and `value` is the number. A retry would repeat the same steps and diverge
    again, so a job that fails with this error is not retried.
    """

    code = "training_diverged"
    status = 422

    def __init__(self, message: str, *, quantity: str, value: float = math.nan) -> None:
        super().__init__(message)
        self.quantity = quantity
        self.value = value


def require_finite(quantity: str, value: float) -> float:
    """Return `value` if it is finite; otherwise raise DivergedError, which names `quantity`."""
    if not math.isfinite(value):
        raise DivergedError(f"{quantity} is {value}", quantity=quantity, value=value)
    return value


class StorageError(TidalError, OSError):
    """A file cannot be written or read: the folder is not writable, or the path is outside the store."""

    code = "storage"
    status = 507


class DiskFullError(StorageError):
    """A write failed because the disk is full or a quota is reached; the same write succeeds once there is room."""


class LeaseLostError(TidalError):
    """A write was refused because another attempt owns the job. The caller must stop and write nothing more."""

    code = "lease_lost"
    status = 409


class JobFailed(TidalError):
    """Makes Flower show the Celery task of a failed job as failed; the state of the job is in the database."""

    code = "job_failed"
