"""Converts exceptions to HTTP replies, always as problem documents (RFC 9457).

`install(app)` registers the handlers. Replies contain no paths of this machine (`common.config.server_paths`).
`middleware.RequestContext` handles every other exception: it logs the traceback and answers 500 with a problem document
that contains only the request id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from common.config.unknown_keys import first_of
from common.errors import (
    MOST_FINDINGS,
    InvalidInputError,
    RateLimitedError,
    TidalError,
    UnavailableError,
    omitted_findings,
)
from common.logging import get_logger
from services.api.schemas.problems import PROBLEM_TYPE

log = get_logger(__name__)

MAX_ERROR_BYTES = 65_536
"""Maximum size of the body of an error reply."""
MAX_LOCATION = 200
MAX_MESSAGE = 600
MAX_DETAIL = 4000
"""Maximum length of an error text, in characters. Error texts quote values from the client, which may be long."""

NOT_MIGRATED = "the tables of the database are missing or out of date; run `tidal db migrate`"

# Default codes by HTTP status, for errors that the framework raises. A TidalError has its own code.
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    421: "unknown_host",
    416: "range_not_satisfiable",
    422: "invalid_input",
    429: "rate_limited",
    503: "unavailable",
}

# The SQLSTATE codes undefined_table, undefined_column, undefined_object and invalid_schema_name.
_SCHEMA_STATES = {"42P01", "42703", "42704", "3F000"}
_DISK_FULL = "53100"


class ErrorResponse(JSONResponse):
    """Sends the document of an error as JSON.

    Text that is not valid Unicode, for example in a file name, is written with escapes.
    """

    def render(self, content: Any) -> bytes:
        """Encode the content as JSON in UTF-8."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def code_of(status: int) -> str:
    """Return the default `code` of an HTTP status."""
    return _CODES.get(status, "error" if status >= 500 else "bad_request")


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """Return a problem document as a response of at most 64 KiB."""
    code = code or code_of(status)
    listed = [
        {
            **item,
            "location": _shorten(item.get("location", ""), MAX_LOCATION),
            "message": _shorten(item["message"], MAX_MESSAGE),
        }
        for item in errors[: MOST_FINDINGS + 1]
    ]
    body: dict[str, Any] = {
        "type": f"urn:tidal:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _shorten(detail, MAX_DETAIL),
        "code": code,
        "errors": listed,
    }
    if request_id:
        body["requestId"] = request_id
    body.update(extra or {})
    while True:
        reply = ErrorResponse(body, status_code=status, headers=dict(headers or {}), media_type=PROBLEM_TYPE)
        if len(reply.body) <= MAX_ERROR_BYTES or not listed:
            return reply
        # The limits above count characters, but one character may become several bytes in JSON and UTF-8.
        del listed[len(listed) // 2 :]


def from_tidal_error(error: TidalError, *, request_id: str | None = None) -> JSONResponse:
    """Return the response for a TidalError."""
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tidal"'
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, UnavailableError):
        headers["Retry-After"] = "5"
    headers |= getattr(error, "headers", {})
    # When a job does not accept a signal, the findings of the error contain the job's status, with the location
    # `status`.
    current = next((item["message"] for item in error.errors if item.get("location") == "status"), None)
    extra = {"currentStatus": current} if current is not None else None
    return problem(
        error.status,
        error.message,
        code=error.code,
        errors=error.errors,
        headers=headers,
        request_id=request_id,
        extra=extra,
    )


def from_database_error(error: SQLAlchemyError) -> TidalError | None:
    """Return a TidalError if the database is unavailable, not migrated or full, or if it cannot store a value.

    Returns None for other errors, which are bugs.
    """
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if state in _SCHEMA_STATES:
        return UnavailableError(NOT_MIGRATED, code="database_not_migrated")
    if state == _DISK_FULL:
        message = "the disk of the database is full; the request changed nothing. Free some disk space and try again"
        return UnavailableError(message, code="database_disk_full")
    if isinstance(error, DataError):
        # JSON from a client may contain a NUL character or a number that is not finite, which PostgreSQL cannot store.
        return InvalidInputError("a value cannot be stored: text with a NUL character, or a number that is not finite")
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    ):
        return UnavailableError("the database cannot be reached; the request changed nothing, try again")
    return None


def findings(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Convert Pydantic's errors to findings, which do not contain the input.

    Only the first 50 errors are converted; one more finding gives the number of errors that were left out.
    """
    found = []
    first, others = first_of(errors)
    for item in first:
        message = str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key '{_shorten(str(item['loc'][-1]), MAX_LOCATION)}'"
        found.append({"location": ".".join(str(part) for part in item["loc"]), "message": message})
    if others:
        found.append(omitted_findings(others))
    return found


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _request_id(request: Request) -> str | None:
    value = request.scope.get("state", {}).get("request_id")
    return str(value) if value else None


async def _handle_tidal_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TidalError)
    if error.status >= 500:
        log.warning("request failed", code=error.code, detail=error.message)
    request.app.state.context.paths.hide_in(error)
    return from_tidal_error(error, request_id=_request_id(request))


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "")
    if (
        any(item["loc"] == ("body",) for item in error.errors())
        and "json" not in kind
        and int(request.headers.get("content-length") or 1)
    ):
        given = f"the Content-Type {kind}" if kind else "no Content-Type"
        detail = f"the body has {given}; send JSON with `Content-Type: application/json`"
        return problem(415, detail, request_id=_request_id(request))
    found = findings(error.errors())
    detail = "; ".join(f"{f['location']}: {f['message']}" for f in found[:3])
    if len(found) > 3:
        first, others = first_of(error.errors())
        detail += f"; and {len(first) + others - 3:,} more"
    return problem(422, detail, code="invalid_input", errors=found, request_id=_request_id(request))


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404 and detail == "Not Found":
        detail = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        detail = f"{request.method} is not allowed at {request.url.path}"
    elif isinstance(error.__cause__, RecursionError):
        detail = "the JSON body nests lists and objects too deeply; use fewer levels"
    return problem(error.status_code, detail, headers=error.headers, request_id=_request_id(request))


async def _handle_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SQLAlchemyError)
    ours = from_database_error(error)
    if ours is None:
        raise error
    return await _handle_tidal_error(request, ours)


async def _handle_redis_error(request: Request, error: Exception) -> Response:
    log.warning("a request failed because Redis cannot be reached", error=str(error))
    return await _handle_tidal_error(request, UnavailableError("Redis cannot be reached; try again"))


def install(app: FastAPI) -> None:
    """Register the exception handlers of the app."""
    app.add_exception_handler(TidalError, _handle_tidal_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(SQLAlchemyError, _handle_database_error)
    app.add_exception_handler(RedisError, _handle_redis_error)
