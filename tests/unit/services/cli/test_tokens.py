"""The requests and the output of `tidal tokens` with a fake api."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from common.errors import InvalidInputError, NotFoundError
from services.cli.commands import tokens
from services.cli.main import app
from tests.unit.api_documents import TIME
from tidal_client import Client

TOKEN = {"id": "tok_1", "name": "Ada", "scopes": ["submit"], "createdAt": TIME, "createdBy": "x", "valid": True}
ENDED = {**TOKEN, "id": "tok_2", "name": "Bob", "valid": False, "revokedAt": TIME}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    requests: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        requests.append((request.method, request.url.path, body))
        if request.method == "POST":
            reply = {**TOKEN, "token": "tdl_secret", "expiresAt": body.get("expiresAt")}
            return httpx.Response(201, json=reply)
        if request.method == "DELETE":
            return httpx.Response(204)
        found = [TOKEN] if request.url.params.get("valid") == "true" else [TOKEN, ENDED]
        return httpx.Response(200, json={"tokens": found, "nextCursor": None})

    monkeypatch.setattr(
        tokens, "connect", lambda url, token: Client("http://tidal", transport=httpx.MockTransport(answer))
    )
    return requests


def tidal(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokens", *arguments])


def test_a_new_token_is_the_only_line_on_standard_output(sent: list[tuple[str, str, Any]]) -> None:
    shown = tidal("create", "Ada", "--scope", "submit", "-s", "generate", "--expires", "30d")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == "tdl_secret\n" and "not shown again" in shown.stderr
    [(_, path, body)] = sent
    assert (path, body["name"], body["scopes"]) == ("/api/tokens", "Ada", ["submit", "generate"])
    left = datetime.fromisoformat(body["expiresAt"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)


@pytest.mark.parametrize("text", ["30", "0d", "-3d", "3m", "1.5d", "99999w", "d"])
def test_a_duration_that_cannot_be_read_is_an_error(sent: list[tuple[str, str, Any]], text: str) -> None:
    refused = tidal("create", "Ada", "--scope", "read", f"--expires={text}")
    assert isinstance(refused.exception, InvalidInputError) and sent == []


def test_an_unknown_scope_is_an_error_before_any_request(sent: list[tuple[str, str, Any]]) -> None:
    assert tidal("create", "Ada", "--scope", "write").exit_code == 2
    assert tidal("create", "Ada").exit_code == 2 and sent == []


def test_the_list_shows_valid_tokens_and_all_if_asked_for(sent: list[tuple[str, str, Any]]) -> None:
    assert "Ada" in tidal("list").stdout and "Bob" not in tidal("list").stdout
    assert "revoked" in tidal("list", "--all").stdout
    assert [one["id"] for one in json.loads(tidal("list", "--all", "--json").stdout)] == ["tok_1", "tok_2"]


def test_a_token_is_revoked_by_its_name_or_its_id(sent: list[tuple[str, str, Any]]) -> None:
    shown = tidal("revoke", "Ada", "tok_9", "--json")
    assert json.loads(shown.stdout) == ["tok_1", "tok_9"]
    assert [path for method, path, _ in sent if method == "DELETE"] == ["/api/tokens/tok_1", "/api/tokens/tok_9"]
    assert isinstance(tidal("revoke", "Bob").exception, NotFoundError)
