"""Types of arguments that several tools have, with the descriptions that callers see."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from services.mcp.summary import DEFAULT_BUDGET, LARGEST_BUDGET, SMALLEST_BUDGET

MaxTokens = Annotated[
    int,
    Field(
        ge=SMALLEST_BUDGET,
        le=LARGEST_BUDGET,
        description="Approximate upper bound for the size of the result. What is left out is named under `omitted`.",
    ),
]
BUDGET = DEFAULT_BUDGET
ExperimentId = Annotated[str, Field(description="Id of the experiment, as in list_experiments.", max_length=200)]
JobId = Annotated[str, Field(description="Id of the job, as in get_jobs.", max_length=200)]
Part = Annotated[
    str | None,
    Field(description="Dotted path of the part to return, such as `samples.0`; null for the whole result."),
]
Limit = Annotated[int, Field(ge=1, le=200, description="Maximum number of entries.")]
