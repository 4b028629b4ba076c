"""Requests about experiments. The replies are in `tidal_client.wire.experiment` and `tidal_client.wire.metrics`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from common.jobs.submission import MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Request
from services.api.schemas.jobs import Tag


class ExperimentChange(Request):
    """The fields to change; omitted fields keep their value."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = None
    tags: list[Tag] = Field([], max_length=MAX_TAGS)
    notes: Annotated[str, StringConstraints(max_length=20_000)] | None = None
