"""Writes need the token; reads need it only if the operator requires it."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.api.conftest import BEARER, Api, RunApi

OPEN_READS = [
    "/api/jobs",
    "/api/jobs/active",
    "/api/experiments",
    "/api/checkpoints",
    "/api/configs",
    "/metrics",
]
ALWAYS_OPEN = ["/healthz", "/readyz", "/openapi.json", "/docs"]
WRITES = [
    ("/api/jobs", {"type": "lm-training"}),
    ("/api/jobs/job_x/signal", {"signal": "stop"}),
    ("/api/jobs/job_x/cancel", None),
]
BAD = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer administrator-toke"},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
    {"Authorization": "administrator-token"},
]


def assert_unauthorized(reply: httpx.Response) -> None:
    assert reply.status_code == 401, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("path", "body"), WRITES)
@pytest.mark.parametrize("headers", BAD)
def test_a_write_needs_the_token(api: Api, path: str, body: object, headers: dict[str, str]) -> None:
    assert_unauthorized(api.http.post(path, json=body, headers=headers))
    assert api.http.get("/api/jobs").json()["jobs"] == []


def test_a_write_with_the_token_succeeds(api: Api) -> None:
    assert api.http.post("/api/jobs/job_x/cancel", headers=BEARER).status_code == 404


@pytest.mark.parametrize("headers", [*BAD, BEARER])
def test_reads_are_open_and_a_bad_token_is_ignored(api: Api, headers: dict[str, str]) -> None:
    for path in OPEN_READS + ALWAYS_OPEN:
        assert api.http.get(path, headers=headers).status_code == 200, path


def test_closed_reads_need_the_token(serve: RunApi) -> None:
    with serve(require_auth_for_reads=True) as api:
        for path in [*OPEN_READS, "/api/jobs/stream", "/api/jobs/x", "/api/experiments/x/checkpoints/final"]:
            assert_unauthorized(api.http.get(path))
        for path in OPEN_READS:
            assert api.admin.get(path).status_code == 200, path
        for path in ALWAYS_OPEN:
            assert api.http.get(path).status_code == 200, path
