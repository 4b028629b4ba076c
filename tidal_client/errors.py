"""The errors that a caller of the api can meet. Each carries a stable `code` (snake_case) and an HTTP `status`.

The api turns them into problem documents, `problems` turns those back into the same errors; `errors` adds what
only the processes of Tidal raise. Leaves out: programming errors, which stay ordinary exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


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
