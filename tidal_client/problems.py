"""Converts problem documents (RFC 9457), and the errors of `/v1`, to the exceptions for which the api sent them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import httpx

    from .sse import StreamEvent

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


def error_of_response(response: httpx.Response) -> TidalError:
    """Return the exception that a failed response describes. The body of the response must have been read."""
    return to_error(response.status_code, _document(response), response.headers.get("Retry-After"))


def error_of_event(event: StreamEvent) -> TidalError:
    """Return the exception that an `error` event describes."""
    problem = event.data if isinstance(event.data, dict) else {}
    detail = problem.get("message") or problem.get("detail")
    return to_error(int(problem.get("status") or 500), {**problem, "detail": detail})


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
    if not isinstance(document, dict):
        return {}
    error = document.get("error")
    if isinstance(error, dict):  # the format of `/v1`
        return {**error, "detail": error.get("message")}
    return document


def check_openai_part(part: Any) -> None:
    """Raise the error that a part of a stream under `/v1` describes; do nothing if it describes none."""
    error = part.get("error") if isinstance(part, dict) else None
    if isinstance(error, dict):
        raise UnavailableError(str(error.get("message")), code=error.get("code"))


def incomplete_stream() -> TidalError:
    """Return the exception for a stream under `/v1` that ends without `[DONE]`."""
    return UnavailableError("the connection ended before the reply was complete; try again")
