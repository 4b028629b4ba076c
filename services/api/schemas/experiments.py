"""Requests about experiments. Replies: `tidal_client.wire.experiment` and `metrics`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from common.jobs.submission import MAX_TAGS, MAX_TEXT
from services.api.schemas.base import Request
from services.api.schemas.jobs import Tag


class ExperimentChange(Request):
    """What to set; what is left out stays."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)] | None = None
    tags: list[Tag] = Field([], max_length=MAX_TAGS)
    notes: Annotated[str, StringConstraints(max_length=20_000)] | None = None
