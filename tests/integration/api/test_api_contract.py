"""A short contract test: generated requests cause no server error and no status that the document does not name."""

from __future__ import annotations

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


def test_generated_requests_get_documented_replies_and_every_operation_succeeds(api: Api) -> None:
    resources = Resources(api)
    outcome = run(api, resources, token=True, examples=2, coverage=False)
    assert outcome.failures == []
    assert [label for label in outcome.never_reached if not label.endswith("/stream")] == []
    assert len(outcome.statuses) == sum(map(len, api.http.get("/openapi.json").json()["paths"].values()))
