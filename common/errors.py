"""The one exception tree of Tidal.

Every error a user can meet derives from `TidalError` and carries a stable `code` (snake_case) and an HTTP `status`.
The api turns it into a problem document in one place; the CLI prints `message` and exits with 1. It leaves out:
programming errors, which stay ordinary exceptions and end up in the log with their traceback.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

MOST_FINDINGS = 50
"""Most findings that one error lists; a request with many wrong keys has as many findings."""


def left_out(count: int) -> dict[str, str]:
    """Return the finding that replaces `count` findings that are not listed."""
    return {"location": "", "message": f"{count:,} more findings are left out"}


class TidalError(Exception):
    """Something the user can understand and mend. `message` names the bad value and the fix.

    `errors` lists single findings as `{"location": "model.d_model", "message": "…"}`.
    """

    code = "error"
    status = 500

    def __init__(self, message: str, *, errors: Sequence[dict[str, Any]] = (), code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.errors = list(errors)
        if code is not None:
            self.code = code


class ConfigError(TidalError, ValueError):
    """A configuration that cannot be used: unknown key, wrong type, value out of range, unreadable file."""

    code = "invalid_config"
    status = 422


class InvalidInputError(TidalError, ValueError):
    """A request or argument that can never succeed as it stands."""

    code = "invalid_input"
    status = 422

    @classmethod
    def at(cls, location: str, message: str) -> Self:
        """Return the error about one place of a request, such as `query.cursor`, with that place as its one finding."""
        return cls(f"{location}: {message}", errors=[{"location": location, "message": message}])


class NotFoundError(TidalError, LookupError):
    """The named thing does not exist."""

    code = "not_found"
    status = 404


class ConflictError(TidalError):
    """The request is fine, the present state is not: a signal that cannot be taken, a live job in the way."""

    code = "conflict"
    status = 409


class UnauthorizedError(TidalError):
    """A token is needed and was missing, wrong or expired."""

    code = "unauthorized"
    status = 401


class ForbiddenError(TidalError):
    """The token is known but lacks the scope."""

    code = "forbidden"
    status = 403


class TooLargeError(TidalError):
    """More bytes than the operator allows."""

    code = "body_too_large"
    status = 413


class RateLimitedError(TidalError):
    """Too many requests; `retry_after` in seconds."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class UnavailableError(TidalError):
    """A part of the system that is needed is away for now: database, Redis, generator."""

    code = "unavailable"
    status = 503


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
