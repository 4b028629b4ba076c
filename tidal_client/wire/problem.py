"""The problem document (RFC 9457), the format of every error."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from .base import Reply


class Finding(Reply):
    """One error in a request."""

    location: str
    """Dotted path of the value, such as `body.config.model.d_model` or `query.limit`; empty for the whole request."""
    message: str


class Problem(Reply):
    """A problem document, sent as `application/problem+json`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:tidal:problem:conflict",
                "title": "Conflict",
                "status": 409,
                "detail": "job job_01 is completed; pause is not possible",
                "code": "conflict",
                "errors": [],
                "requestId": "9f0c5c0e5a5c4b6c",
                "currentStatus": "completed",
            }
        }
    )

    type: str
    """`urn:tidal:problem:<code>`."""
    title: str
    """The reason phrase of the HTTP status."""
    status: int = Field(ge=400, le=599)
    detail: str
    """What went wrong, and what to do about it."""
    code: str
    """Stable name of the kind of error, snake_case."""
    errors: list[Finding]
    request_id: str | None = None
    """Id of the request, which is also in the header `X-Request-ID` and in the log."""
    current_status: str | None = None
    """Current status of the job; only in a reply 409 about a job."""
