"""Calls for named tokens have the format that the api expects."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx

from tests.unit.api_documents import TIME
from tidal_client import Client

TOKEN = {"id": "tok_1", "name": "Ada", "scopes": ["read", "later"], "createdAt": TIME, "createdBy": "x", "valid": True}


def test_tokens_are_created_joined_from_pages_and_revoked() -> None:
    sent: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        query = {name: value for name, value in request.url.params.items() if name != "limit"}
        sent.append((request.method, request.url.path, body or query))
        if request.method == "POST":
            return httpx.Response(201, json={**TOKEN, "token": "tdl_secret"})
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.url.path == "/api/session":
            return httpx.Response(200, json={"name": "Ada", "scopes": ["read"], "readsOpen": True, "version": "1"})
        if request.url.path == "/api/tokens/tok_1":
            return httpx.Response(200, json=TOKEN)
        following = None if "cursor" in request.url.params else "next"
        return httpx.Response(200, json={"tokens": [TOKEN], "nextCursor": following})

    with Client("http://tidal", "admin", transport=httpx.MockTransport(answer)) as api:
        made = api.create_token("Ada", ["read"], expires_at=datetime(2040, 1, 2, tzinfo=UTC))
        assert (made.token, made.scopes) == ("tdl_secret", ["read", "later"])
        assert [one.id for one in api.tokens(valid=True)] == ["tok_1", "tok_1"]
        assert api.token("tok_1").valid and api.session().name == "Ada"
        api.revoke_token("tok_1")
    assert sent == [
        ("POST", "/api/tokens", {"name": "Ada", "scopes": ["read"], "expiresAt": "2040-01-02T00:00:00Z"}),
        ("GET", "/api/tokens", {"valid": "true"}),
        ("GET", "/api/tokens", {"valid": "true", "cursor": "next"}),
        ("GET", "/api/tokens/tok_1", {}),
        ("GET", "/api/session", {}),
        ("DELETE", "/api/tokens/tok_1", {}),
    ]
