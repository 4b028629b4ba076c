"""Named tokens: created, shown once, listed, used, expired, revoked, and refused while the database does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from common.access import is_well_formed
from services.api import token_register
from services.local.servers import PostgresServer
from tests.integration.api import access
from tests.integration.api.access import bearer, make_named, revoke, without_database
from tests.integration.api.conftest import BEARER, TINY_CONFIG, Api, RunApi

EARLIER = "UPDATE tokens SET last_used_at = last_used_at - make_interval(secs => :age) RETURNING last_used_at"


def await_status(request: Callable[[], int], wanted: int) -> None:
    end = time.monotonic() + 10
    while (status := request()) != wanted:
        assert time.monotonic() < end, f"still {status}, not {wanted}"


def test_the_secret_is_shown_once_and_only_its_hash_is_stored(api: Api, engine: Engine) -> None:
    reply = api.admin.post("/api/tokens", json={"name": " Ada ", "scopes": ["submit", "generate", "submit"]})
    assert reply.status_code == 201 and reply.headers["cache-control"] == "no-store"
    made = reply.json()
    secret = made.pop("token")
    assert is_well_formed(secret)
    assert (made["name"], made["scopes"], made["createdBy"]) == ("Ada", ["generate", "submit"], "administrator")
    assert reply.headers["location"] == f"/api/tokens/{made['id']}"
    assert api.admin.get(f"/api/tokens/{made['id']}").json() == made
    assert api.admin.get("/api/tokens").json() == {"tokens": [made], "nextCursor": None}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT t::text FROM tokens t")).scalars().all()
    assert len(rows) == 1 and secret not in rows[0] and secret[4:] not in rows[0]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "scopes": ["read"]},
        {"name": "a\nb", "scopes": ["read"]},
        {"name": "x" * 101, "scopes": ["read"]},
        {"name": "Administrator", "scopes": ["read"]},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["write"]},
        {"name": "a", "scopes": ["read"], "expiresAt": "2020-01-01T00:00:00Z"},
        {"name": "a", "scopes": ["read"], "expiresAt": "2040-01-01T00:00:00"},
        {"name": "a", "scopes": ["read"], "expires": 3},
    ],
)
def test_an_invalid_token_is_refused(api: Api, body: dict[str, object]) -> None:
    assert api.admin.post("/api/tokens", json=body).status_code == 422
    assert api.admin.get("/api/tokens").json()["tokens"] == []


def test_two_valid_tokens_cannot_have_the_same_name(api: Api) -> None:
    first = make_named(api, "Ada", "read")
    refused = api.admin.post("/api/tokens", json={"name": "Ada", "scopes": ["read"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    revoke(api, first)
    second = make_named(api, "Ada", "read")
    access.expire(api, second)
    third = make_named(api, "Ada", "read")
    found = api.admin.get("/api/tokens").json()["tokens"]
    assert [(one["id"], one["valid"]) for one in found] == [
        (third["id"], True), (second["id"], False), (first["id"], False)
    ]  # fmt: skip
    for valid, ids in (("true", [third["id"]]), ("false", [second["id"], first["id"]])):
        page = api.admin.get("/api/tokens", params={"valid": valid}).json()
        assert [one["id"] for one in page["tokens"]] == ids


def test_pages_show_every_token_once(api: Api) -> None:
    made = [make_named(api, f"token {number}", "read")["id"] for number in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = api.admin.get("/api/tokens", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [one["id"] for one in page["tokens"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_a_revoked_token_cannot_come_back(api: Api) -> None:
    token = make_named(api, "Ada", "admin")
    own = bearer(token["token"])
    assert api.http.delete(f"/api/tokens/{token['id']}", headers=own).status_code == 204
    await_status(lambda: api.http.get("/api/tokens", headers=own).status_code, 401)
    first = api.admin.get(f"/api/tokens/{token['id']}").json()
    assert api.admin.delete(f"/api/tokens/{token['id']}").status_code == 204
    assert api.admin.get(f"/api/tokens/{token['id']}").json() == first and first["valid"] is False
    assert api.admin.delete("/api/tokens/tok_nothing").status_code == 404
    assert api.admin.get("/api/tokens/tok_nothing").status_code == 404


def test_the_session_names_the_token_and_what_it_allows(serve: RunApi) -> None:
    with serve(require_auth_for_reads=True) as api:
        token = make_named(api, "Ada", "submit", expiresAt="2040-01-01T00:00:00+01:00")
        shown = api.http.get("/api/session", headers=bearer(token["token"])).json()
        assert (shown["name"], shown["scopes"]) == ("Ada", ["read", "submit"])
        assert shown["expiresAt"] == "2039-12-31T23:00:00Z"
        revoke(api, token)
        await_status(lambda: api.http.get("/api/configs", headers=bearer(token["token"])).status_code, 401)
        shown = api.http.get("/api/session", headers=bearer(token["token"])).json()
        assert (shown["name"], shown["scopes"], shown["expiresAt"]) == (None, [], None)


def test_a_token_ends_at_its_time_without_any_request(api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    own = bearer(make_named(api, "short", "submit", expiresAt=ends.isoformat())["token"])
    assert api.http.post("/api/jobs/job_x/cancel", headers=own).status_code == 404
    await_status(lambda: api.http.post("/api/jobs/job_x/cancel", headers=own).status_code, 401)
    assert timedelta(0) <= datetime.now(UTC) - ends < timedelta(seconds=1)


def test_the_last_use_is_recorded_once_a_minute(api: Api, engine: Engine) -> None:
    token = make_named(api, "Ada", "read")
    assert token["lastUsedAt"] is None
    for age, recorded in ((0, True), (30, False), (61, True)):
        with engine.begin() as connection:
            earlier = text(EARLIER)
            before = connection.scalar(earlier, {"age": age})
        api.context.tokens._found.clear()  # as after TRUST_SECONDS without a request
        assert api.http.get("/api/jobs", headers=bearer(token["token"])).status_code == 200
        with engine.connect() as connection:
            after = connection.scalar(text("SELECT last_used_at FROM tokens"))
        assert (after != before) == recorded and after is not None


def test_events_of_a_job_name_the_token_that_caused_them(api: Api) -> None:
    token = make_named(api, "Ada", "submit")
    own = bearer(token["token"])
    body = {"type": "lm-training", "config": TINY_CONFIG}
    job = api.http.post("/api/jobs", json=body, headers=own).json()["id"]
    api.http.post(f"/api/jobs/{job}/cancel", headers=BEARER).raise_for_status()
    events = api.http.get(f"/api/jobs/{job}/events").json()["events"]
    assert [(event["event"], event["details"]) for event in events] == [
        ("submitted", {"token": "Ada", "token_id": token["id"]}),
        ("cancelled", {"token": "administrator"}),
    ]


def test_without_the_database_named_tokens_are_refused_and_the_administrator_reads(
    serve: RunApi, postgres: PostgresServer
) -> None:
    with serve(require_auth_for_reads=True) as api:
        own = bearer(make_named(api, "Ada", "admin")["token"])
        assert api.http.get("/api/configs", headers=own).status_code == 200
        with without_database(postgres, api.settings.database_url.get_secret_value()):
            await_status(lambda: api.http.get("/api/configs", headers=own).status_code, 503)
            refused = api.http.get("/api/session", headers=own)
            assert (refused.status_code, refused.json()["code"]) == (503, "token_not_checked")
            assert api.http.get("/api/configs", headers=bearer("tdl_wrong")).status_code == 401
            for path in ("/healthz", "/api/configs", "/metrics", "/api/session"):
                assert api.http.get(path, headers=BEARER).status_code == 200, path
        await_status(lambda: api.http.get("/api/configs", headers=own).status_code, 200)


def test_many_requests_with_one_token_cost_two_queries_per_second(api: Api, engine: Engine) -> None:
    own = bearer(make_named(api, "Ada", "read")["token"])
    assert api.http.get("/api/configs", headers=own).status_code == 200
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE tokens"))  # a query would wait and then fail
        began = time.monotonic()
        while time.monotonic() - began < token_register.TRUST_SECONDS / 2:
            assert api.http.get("/api/configs", headers=own).status_code == 200
