"""With TIDAL_REQUIRE_AUTH_FOR_READS a client without the token gets no data from any operation.

The test sends a request to every operation of the OpenAPI document, so new operations are covered. OPEN lists the
operations that need no token.
"""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import openai
import pytest

from common.access import rejections
from tests.integration.api.conftest import TOKEN, Api, RunApi
from tests.integration.api.contract_resources import Resources, ValidRequest
from tests.integration.api.openai_fixtures import Generator

OPEN = {"GET /healthz", "GET /readyz", "GET /api/session"}
FILES = {"model.safetensors", "rl_checkpoint", "base_config.yaml"}
PAGES = ("/", "/docs", "/openapi.json", "/favicon.ico", "/nothing", "/api/nothing", "/assets/nothing.js")
WRONG = {"Authorization": "Bearer a-guess-of-somebody"}


def requests(resources: Resources) -> list[tuple[str, str, str, ValidRequest]]:
    """Return one request per operation, as (label, method, path, other parts).

    With the token, each request succeeds.
    """
    found = []
    for path, operations in resources.api.admin.get("/openapi.json").json()["paths"].items():
        for method in operations:
            label = f"{method.upper()} {path}"
            valid = resources.valid(label)
            values = {**resources.path_values(), **valid.path}
            filled = re.sub(r"\{(\w+)\}", lambda found, values=values: values[found.group(1)], path)
            found.append((label, method.upper(), filled, valid))
    return found


def send(http: httpx.Client, method: str, path: str, valid: ValidRequest, headers: dict[str, str]) -> httpx.Response:
    body: dict[str, Any] = {}
    if isinstance(valid.body, bytes):
        body = {"content": valid.body}
    elif valid.body is not None:
        body = {"json": valid.body}
    query = {"topic": "jobs"} if path == "/api/stream" else valid.query
    return http.request(method, path, params=query, headers=headers, **body)


def names(resources: Resources) -> set[str]:
    """Return texts that no reply may contain: ids and names of jobs and experiments, file names, server paths."""
    return {*resources.kept, *FILES, "Slow cosine", "Helmsman", str(resources.api.settings.experiments_dir.parent)}


@pytest.mark.parametrize("headers", [{}, WRONG, {"Authorization": f"Basic {TOKEN}"}], ids=["none", "wrong", "basic"])
def test_nothing_is_read_written_or_generated_without_the_token(
    serve: RunApi, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Requests with a wrong token are not delayed in this test; test_api_hosts_and_wrong_tokens tests the delays.
    monkeypatch.setattr(rejections, "FREE", 10_000)
    with serve(require_auth_for_reads=True, rate_limit_capacity=1_000_000) as api:
        resources = Resources(api)
        found = requests(resources)
        before = api.admin.get("/api/jobs").json(), sorted(api.settings.experiments_dir.rglob("*"))
        assert len(found) > 50
        secret = names(resources)
        for label, method, path, valid in found:
            reply = send(api.http, method, path, valid, headers)
            assert reply.status_code == (200 if label in OPEN else 401), (label, reply.text[:300])
            assert not [name for name in secret if name in reply.text], label
        # The reply must not reveal whether a resource exists, not even in errors of the web framework.
        for method, path, body in (
            ("POST", "/api/generate", {"checkpoint": "no-such/final", "prompt": "Tom"}),
            ("POST", "/v1/completions", {"model": f"{resources.lm}/nothing", "prompt": "Tom"}),
            ("POST", "/v1/completions", {"model": 1}),
            ("POST", "/api/analyze-trajectories", {"checkpoint": f"{resources.lm}/nothing", "prompts": ["Tom"]}),
            ("GET", f"/api/experiments/{resources.lm}/checkpoints/nothing", None),
            ("GET", "/v1/models/nothing", None),
            ("GET", "/api/configs/nothing.yaml", None),
            ("GET", "/api/jobs?limit=0", None),
        ):
            reply = api.http.request(method, path, json=body, headers=headers)
            assert reply.status_code == 401, (path, reply.text)
            assert not [name for name in secret if name in reply.text], path
        for path in PAGES:
            reply = api.http.get(path, headers=headers)
            # The examples in the API reference contain ordinary file names, so the texts in FILES are not searched for
            # there.
            shown = [name for name in secret - FILES if name in reply.text]
            assert reply.status_code in (200, 307, 404) and not shown, path
        after = api.admin.get("/api/jobs").json(), sorted(api.settings.experiments_dir.rglob("*"))
        assert before == after


def test_the_token_allows_everything_also_for_the_openai_package(serve: RunApi, redis_url: str) -> None:
    with serve(require_auth_for_reads=True) as api:
        resources = Resources(api)
        model = f"{resources.lm}/final"
        generator = Generator(redis_url, api.settings.experiments_dir)
        try:
            with openai.OpenAI(base_url=f"{api.url}/v1", api_key=TOKEN, max_retries=0, timeout=20) as client:
                assert any(resources.lm in found.id for found in client.models.list())
                assert client.completions.create(model=model, prompt="Tom", max_tokens=3).choices[0].text
                streamed = client.completions.create(model=model, prompt="Tom", max_tokens=3, stream=True)
                assert len(list(streamed)) >= 3
            with openai.OpenAI(base_url=f"{api.url}/v1", api_key="wrong", max_retries=0, timeout=20) as client:
                with pytest.raises(openai.AuthenticationError):
                    client.models.list()
                with pytest.raises(openai.AuthenticationError):
                    client.completions.create(model=model, prompt="Tom", max_tokens=3)
        finally:
            generator.close()


def test_open_endpoints_ignore_a_wrong_token_however_often_it_comes(api: Api, redis_url: str) -> None:
    resources = Resources(api)
    generator = Generator(redis_url, api.settings.experiments_dir)
    try:
        with openai.OpenAI(base_url=f"{api.url}/v1", api_key="sk-none", max_retries=0, timeout=20) as client:
            assert client.completions.create(model=f"{resources.lm}/final", prompt="Tom", max_tokens=3).choices[0].text
        for _ in range(30):
            assert api.http.get("/api/jobs", headers=WRONG).status_code == 200
        assert len(api.context.rejections) == 0
        assert "tidal_rejected_tokens_total 0.0" in api.http.get("/metrics").text
    finally:
        generator.close()


def test_openapi_marks_the_operations_that_need_the_token(serve: RunApi) -> None:
    with serve(require_auth_for_reads=True) as api:
        document = json.loads(api.http.get("/openapi.json").text)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if f"{method.upper()} {path}" not in OPEN:
                [alternative] = operation["security"]
                assert len(alternative["token"]) == 1, (method, path)
