"""Converts problem documents (RFC 9457) back to the exceptions for which the api sent them."""

from __future__ import annotations

from typing import Any

import httpx

from .errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    TidalError,
    UnauthorizedError,
    UnavailableError,
)

_BY_STATUS: dict[int, type[TidalError]] = {
    400: InvalidInputError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: InvalidInputError,
    422: InvalidInputError,
    503: UnavailableError,
    504: UnavailableError,
}


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the TidalError that a failed response describes; do nothing if the response is a success."""
    if response.is_success:
        return
    response.read()
    raise to_error(response.status_code, _document(response), response.headers.get("Retry-After"))


def to_error(status: int, document: dict[str, Any], retry_after: str | None = None) -> TidalError:
    """Return the exception for an HTTP status and a problem document."""
    detail = str(document.get("detail") or document.get("title") or f"the server replied with status {status}")
    if status == 429:
        return RateLimitedError(
            detail,
            retry_after=float(retry_after) if retry_after and retry_after.isdigit() else 1.0,
            code=document.get("code"),
        )
    errors = document.get("errors")
    return _BY_STATUS.get(status, TidalError)(
        detail, errors=errors if isinstance(errors, list) else (), code=document.get("code")
    )


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
