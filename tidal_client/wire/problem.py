"""The problem document (RFC 9457), the format of every error."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from .base import Reply


class Finding(Reply):
    """One invalid value in a request."""

    location: str
    """Dotted path of the invalid value, such as `body.config.model.d_model` or `query.limit`; empty if the error
    concerns the whole request."""
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
    """`urn:tidal:problem:<code>`, a URI for the kind of error."""
    title: str
    """The reason phrase of the HTTP status."""
    status: int = Field(ge=400, le=599)
    detail: str
    """What went wrong and how to fix it."""
    code: str
    """Stable identifier of the kind of error, in snake_case."""
    errors: list[Finding]
    request_id: str | None = None
    """Id of the request, which the header `X-Request-ID` and the log contain as well."""
    current_status: str | None = None
    """Current status of the job; only present if the error is a 409 about a job."""
