"""The errors that a client of the api can receive. Each has a stable `code` (snake_case) and an HTTP `status`.

The api converts them to problem documents, and `problems` converts those back to the same errors. Errors that only
Tidal's own processes raise are in `common.errors`. Programming errors are ordinary exceptions and not errors of this
module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class TidalError(Exception):
    """The base class of all errors with a message for the user. `message` names the wrong value and the fix.

    `errors` lists all invalid values, each as `{"location": "model.d_model", "message": "…"}`.
    """

    code = "error"
    status = 500

    def __init__(self, message: str, *, errors: Sequence[dict[str, Any]] = (), code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.errors = list(errors)
        if code is not None:
            self.code = code


class InvalidInputError(TidalError, ValueError):
    """A request or argument is invalid; repeating it unchanged cannot succeed."""

    code = "invalid_input"
    status = 422

    @classmethod
    def at(cls, location: str, message: str) -> Self:
        """Return an error about one value of a request. `location` is its dotted path, such as `query.cursor`."""
        return cls(f"{location}: {message}", errors=[{"location": location, "message": message}])


class NotFoundError(TidalError, LookupError):
    """The requested job, experiment, file or other object does not exist."""

    code = "not_found"
    status = 404


class ConflictError(TidalError):
    """The current state does not allow the request; for example, a job still needs a dataset to be deleted."""

    code = "conflict"
    status = 409


class UnauthorizedError(TidalError):
    """The request needs a token, but its token is missing, wrong or expired."""

    code = "unauthorized"
    status = 401


class ForbiddenError(TidalError):
    """The token is valid but lacks the scope that the request needs."""

    code = "forbidden"
    status = 403


class RateLimitedError(TidalError):
    """The caller has sent too many requests; the next one may succeed after `retry_after` seconds."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class UnavailableError(TidalError):
    """A required part of the system is temporarily unavailable: the database, Redis or the generator."""

    code = "unavailable"
    status = 503
