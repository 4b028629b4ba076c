"""The exception tree of Tidal: the errors that a client can receive too (`tidal_client.errors`), and internal ones.

Every error a user can meet derives from `TidalError` and carries a stable `code` (snake_case) and an HTTP `status`.
The api turns it into a problem document in one place; the CLI prints `message` and exits with 1. It leaves out:
programming errors, which stay ordinary exceptions and end up in the log with their traceback.
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
    "left_out",
    "require_finite",
]

MOST_FINDINGS = 50
"""Largest number of findings that one error lists. A request with many wrong keys has as many findings."""


def left_out(count: int) -> dict[str, str]:
    """Return the finding that replaces `count` findings that are not listed."""
    return {"location": "", "message": f"{count:,} more findings are left out"}


class ConfigError(TidalError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, value out of range, unreadable file."""

    code = "invalid_config"
    status = 422


class TooLargeError(TidalError):
    """More bytes than the operator allows."""

    code = "body_too_large"
    status = 413


class DataError(TidalError, ValueError):
    """A corpus or token cache that cannot be used; the message says how to repair it."""

    code = "invalid_data"
    status = 422


class CheckpointError(TidalError, ValueError):
    """A checkpoint that is damaged, unsafe to load or does not fit the model."""

    code = "invalid_checkpoint"
    status = 422


class DivergedError(TidalError, ArithmeticError):
    """A number of a training that has to be finite is not: a loss, a gradient norm, a weight.

    `quantity` says in words what it is, `value` what it was found to be. The same steps lead to the same place again,
    so a job that ends with it is not tried again.
    """

    code = "training_diverged"
    status = 422

    def __init__(self, message: str, *, quantity: str, value: float = math.nan) -> None:
        super().__init__(message)
        self.quantity = quantity
        self.value = value


def require_finite(quantity: str, value: float) -> float:
    """`value` if it is finite; DivergedError that names `quantity` otherwise."""
    if not math.isfinite(value):
        raise DivergedError(f"{quantity} is {value}", quantity=quantity, value=value)
    return value


class StorageError(TidalError, OSError):
    """Disk full, folder not writable, a path outside the store."""

    code = "storage"
    status = 507


class DiskFullError(StorageError):
    """A write failed because the disk is full or a quota is reached; the same write succeeds once there is room."""


class LeaseLostError(TidalError):
    """A fenced write met zero rows: another attempt owns the job. Stop at once and write nothing more."""

    code = "lease_lost"
    status = 409


class JobFailed(TidalError):
    """Raised by the training task so that Flower shows a failed doorbell; the job row holds the truth."""

    code = "job_failed"
