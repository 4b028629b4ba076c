"""A short contract test: generated requests cause no server error and no status that the OpenAPI document does not
list."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.contract import run
from tests.integration.api.contract_resources import Resources
from tests.integration.api.openai_fixtures import Generator


@pytest.fixture
def api(serve: RunApi, redis_url: str) -> Iterator[Api]:
    with serve(rate_limit_capacity=1_000_000) as running_api:
        generator = Generator(redis_url, running_api.settings.experiments_dir)
        yield running_api
        generator.close()


GROUPS = ("/api/jobs", "/api/experiments", "/api/(datasets|reports|analyses)", "(?!/api/(jobs|exp|dat|rep|analyses))")
"""Regular expressions that group the paths: each path matches exactly one of them, and no group takes long to test."""


@pytest.mark.parametrize("paths", GROUPS)
def test_generated_requests_get_documented_replies_and_every_operation_succeeds(api: Api, paths: str) -> None:
    document = api.http.get("/openapi.json").json()["paths"]
    assert all(sum(bool(re.match(group, path)) for group in GROUPS) == 1 for path in document)
    outcome = run(api, Resources(api), token=True, examples=2, coverage=False, paths=paths)
    assert outcome.failures == []
    assert [label for label in outcome.never_reached if not label.endswith("/stream")] == []
    assert len(outcome.statuses) == sum(len(item) for path, item in document.items() if re.match(paths, path))
