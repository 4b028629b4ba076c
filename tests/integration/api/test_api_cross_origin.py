"""Web pages from configured origins may use the whole api; pages from other origins may use none of it (CORS)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import BEARER, Api, RunApi

PAGE = "https://lab.example"
OTHERS = ("https://lab.example.evil.test", "http://lab.example", "https://LAB.example:444", "null", "")
SENT = "authorization, content-type, idempotency-key, if-match, last-event-id, x-request-id, x-stainless-lang"


@pytest.fixture
def api(serve: RunApi) -> Iterator[Api]:
    with serve(allowed_origins=f"{PAGE},http://localhost:3000", rate_limit_capacity=1) as running_api:
        yield running_api


def preflight(api: Api, path: str, method: str, origin: str) -> httpx.Response:
    """Send a preflight request. As in a browser, it never contains the token."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": SENT}
    return api.http.options(path, headers={"Origin": origin, **asked})


def words(reply: httpx.Response, header: str) -> set[str]:
    return {word.strip().lower() for word in reply.headers[header].split(",")}


def cross_origin_headers(reply: httpx.Response) -> set[str]:
    return {name for name in reply.headers if name.lower().startswith("access-control-")}


def test_every_operation_is_allowed_for_configured_origins_only(api: Api) -> None:
    paths: dict[str, Any] = api.http.get("/openapi.json").json()["paths"]
    operations = [(path, method.upper()) for path, methods in paths.items() for method in methods]
    assert len(operations) > 50
    for path, method in operations:
        for origin in (PAGE, "http://localhost:3000"):
            granted = preflight(api, path, method, origin)
            assert granted.status_code == 200, (path, method)
            assert granted.headers["Access-Control-Allow-Origin"] == origin
            assert method.lower() in words(granted, "Access-Control-Allow-Methods")
            assert words(granted, "Access-Control-Allow-Headers") == words(
                httpx.Response(200, headers={"x": SENT}), "x"
            )
            assert "Access-Control-Allow-Credentials" not in granted.headers
        refused = preflight(api, path, method, OTHERS[0])
        assert cross_origin_headers(refused) == set()
    for origin in OTHERS:
        assert cross_origin_headers(preflight(api, "/api/jobs", "POST", origin)) == set(), origin
        plain = api.http.get("/api/jobs", headers={"Origin": origin})
        assert (plain.status_code, cross_origin_headers(plain)) == (200, set()), origin
        # A cache must not reuse the stored reply for a page from another origin.
        assert "origin" in words(plain, "Vary")


def test_replies_streams_and_errors_of_every_kind_can_be_read(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job = api.submit()
    monkeypatch.setattr("services.api.operations.storage.storage_overview", lambda *_: 1 / 0)
    stream = f"/api/jobs/{job['id']}/stream"
    generate: dict[str, Any] = {"json": {"checkpoint": "nosuch/final"}}
    large: dict[str, Any] = {"content": b"x" * (1024 * 1024 + 1), "headers": BEARER}
    for method, path, options, status in (
        ("GET", "/api/jobs", {}, 200),
        ("GET", "/assets/icon.svg", {}, 200),
        ("POST", "/api/jobs", {"json": {}}, 401),
        ("GET", "/nothing", {}, 404),
        ("DELETE", "/api/jobs", {}, 405),
        ("POST", "/api/jobs", large, 413),
        ("POST", "/api/jobs", {"json": {}, "headers": BEARER}, 422),
        ("POST", "/api/generate", generate, 422),
        ("POST", "/api/generate", generate, 429),
        ("POST", "/v1/completions", {"json": {}}, 400),
        ("GET", "/api/storage", {}, 500),
        ("GET", stream, {}, 200),
    ):
        headers = {"Origin": PAGE, **options.get("headers", {})}
        with api.http.stream(method, path, **{**options, "headers": headers}) as reply:
            assert reply.status_code == status, path
            assert reply.headers["Access-Control-Allow-Origin"] == PAGE, path
            assert "origin" in words(reply, "Vary"), path
            exposed = words(reply, "Access-Control-Expose-Headers")
        assert exposed >= {
            "x-request-id",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "retry-after",
            "etag",
            "content-disposition",
        }


def test_any_origin_may_be_allowed_and_without_the_setting_none_is(serve: RunApi) -> None:
    with serve(allowed_origins="*") as api:
        assert (
            api.http.get("/healthz", headers={"Origin": "https://x.test"}).headers["Access-Control-Allow-Origin"] == "*"
        )
        assert preflight(api, "/api/jobs", "POST", "https://x.test").headers["Access-Control-Allow-Origin"] == "*"
    with serve() as api:
        assert cross_origin_headers(api.http.get("/healthz", headers={"Origin": PAGE})) == set()
        refused = preflight(api, "/api/jobs", "POST", PAGE)
        assert (refused.status_code, cross_origin_headers(refused)) == (405, set())
