"""Tokens of every kind for tests of the access rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from sqlalchemy import make_url, text

from common.access import make_token
from services.local.servers import PostgresServer
from tests.integration.api.conftest import TOKEN, Api
from tests.integration.databases import connect

SCOPES = ("read", "generate", "submit", "admin")


def make_named(api: Api, name: str, *scopes: str, **fields: Any) -> dict[str, Any]:
    """Create a token over HTTP and return the reply."""
    reply = api.admin.post("/api/tokens", json={"name": name, "scopes": list(scopes), **fields})
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def revoke(api: Api, token: dict[str, Any]) -> None:
    assert api.admin.delete(f"/api/tokens/{token['id']}").status_code == 204


def expire(api: Api, token: dict[str, Any]) -> None:
    """Let a token expire now. The api accepts only times in the future, so this changes the row."""
    with api.context.engine.begin() as connection:
        connection.execute(text("UPDATE tokens SET expires_at = now() WHERE id = :id"), {"id": token["id"]})


def valid_headers(api: Api) -> dict[str, dict[str, str]]:
    """Return {scope: headers with a token that has only this scope}, and `administrator`."""
    made = {scope: bearer(make_named(api, f"only {scope}", scope)["token"]) for scope in SCOPES}
    return {**made, "administrator": bearer(TOKEN)}


def invalid_headers(api: Api) -> dict[str, dict[str, str]]:
    """Return {kind: headers without a valid token}; expired and revoked tokens have every scope."""
    revoked, expired = (make_named(api, name, *SCOPES) for name in ("revoked", "expired"))
    revoke(api, revoked)
    expire(api, expired)
    return {
        "none": {},
        "basic": {"Authorization": f"Basic {TOKEN}"},
        "malformed": bearer("tdl_abc"),
        "wrong": bearer(make_token()),
        "expired": bearer(expired["token"]),
        "revoked": bearer(revoked["token"]),
    }


def status_of(http: httpx.Client, method: str, path: str, headers: dict[str, str]) -> int:
    """Send a request without a body and return the status; a stream is closed at once."""
    with http.stream(method, path, headers=headers) as reply:
        return reply.status_code


@contextmanager
def without_database(postgres: PostgresServer, url: str) -> Iterator[None]:
    """Refuse connections to the test's database, and close those that exist."""
    name = make_url(url).database
    with connect(postgres, "postgres") as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
