"""Problem documents in the OpenAPI document. `tidal_client.wire.problem` defines the type."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from tidal_client.wire.problem import Problem

PROBLEM_TYPE = "application/problem+json"


REF = "#/components/schemas/{model}"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` entry of a route for these statuses, for the OpenAPI document."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def problem_schemas() -> dict[str, Any]:
    """Component schemas that `problem_responses` points to."""
    schema = Problem.model_json_schema(ref_template=REF)
    return {**schema.pop("$defs"), "Problem": schema}
