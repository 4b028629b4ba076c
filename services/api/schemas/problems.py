"""Describes error replies (problem documents) in the OpenAPI document. Their type is in `tidal_client.wire.problem`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tidal_client.wire.problem import Problem

PROBLEM_TYPE = "application/problem+json"


REF = "#/components/schemas/{model}"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the argument `responses` of a route that answers errors with `statuses`."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def problem_schemas() -> dict[str, Any]:
    """Return the component schemas to which `problem_responses` refers."""
    schema = Problem.model_json_schema(ref_template=REF)
    return {**schema.pop("$defs"), "Problem": schema}
