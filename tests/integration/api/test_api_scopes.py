"""Every endpoint answers every kind of token as docs/access.md describes, with reads open and closed.

The requests are generated from the OpenAPI document, so a new endpoint cannot be forgotten. Which scope an endpoint
needs follows from the rules of the specification in `scope_of`, not from the routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from common.access import rejections
from tests.integration.api import access
from tests.integration.api.conftest import Api, RunApi

OPEN = {"GET /healthz", "GET /readyz", "GET /api/session"}
GENERATE = ("/v1/", "/api/generate", "/api/analyze-trajectories")
ADMIN = ("/api/tokens", "/api/audit")
INCLUDED = {
    "read": {"read"},
    "generate": {"generate"},
    "submit": {"read", "submit"},
    "admin": {"read", "generate", "submit", "admin"},
    "administrator": {"read", "generate", "submit", "admin"},
}


def scope_of(method: str, path: str) -> str:
    if path.startswith(ADMIN):
        return "admin"
    if path.startswith(GENERATE):
        return "generate"
    return "read" if method == "GET" else "submit"


def requests(api: Api) -> Iterator[tuple[str, str, str]]:
    """Yield (label, method, path) of every operation. The ids in the paths do not exist, and no body is sent, so a
    request that is allowed changes nothing: it gets 404, 422 or, for a list, 200."""
    for path, operations in api.admin.get("/openapi.json").json()["paths"].items():
        for method in operations:
            yield f"{method.upper()} {path}", method.upper(), re.sub(r"\{\w+\}", "nothing", path)


@pytest.mark.parametrize("closed", [False, True], ids=["reads open", "reads closed"])
def test_every_endpoint_answers_every_kind_of_token_as_specified(
    serve: RunApi, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.setattr(rejections, "FREE", 10_000)
    with serve(require_auth_for_reads=closed, rate_limit_capacity=1_000_000) as api:
        invalid, valid = access.invalid_headers(api), access.valid_headers(api)
        found = list(requests(api))
        assert len(found) > 60
        for label, method, path in found:
            needed = scope_of(method, path)
            is_open = label in OPEN or (needed in ("read", "generate") and not closed)
            for kind, headers in invalid.items():
                status = access.status_of(api.http, method, path, headers)
                assert status not in (401, 403) if is_open else status == 401, (label, kind, status)
            for kind, headers in valid.items():
                status = access.status_of(api.http, method, path, headers)
                allowed = is_open or needed in INCLUDED[kind]
                assert status not in (401, 403) if allowed else status == 403, (label, kind, status)
        assert api.admin.get("/api/jobs").json()["jobs"] == []


def test_the_openapi_document_names_the_scope_of_every_endpoint(api: Api) -> None:
    for path, operations in api.http.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if f"{method.upper()} {path}" in ("GET /healthz", "GET /readyz"):
                assert "security" not in operation
                continue
            named = [] if path == "/api/session" else [scope_of(method.upper(), path)]
            alternatives = [{}] if named in ([], ["read"], ["generate"]) else []
            assert operation["security"] == [*alternatives, {"token": named}], (method, path)


def test_on_an_open_endpoint_only_a_token_with_the_scope_has_the_rate_limit_of_tokens(serve: RunApi) -> None:
    body = {"checkpoint": "no-such/final", "prompt": "Tom"}
    with serve(rate_limit_capacity=100, token_rate_limit_capacity=7) as api:
        headers = {**access.invalid_headers(api), **access.valid_headers(api)}
        limits = {
            kind: api.http.post("/api/generate", json=body, headers=sent).headers["X-RateLimit-Limit"]
            for kind, sent in headers.items()
        }
    own = {"generate", "admin", "administrator"}
    assert limits == {kind: "7" if kind in own else "100" for kind in headers}
