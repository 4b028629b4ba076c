"""The audit log has one entry for each change, in its transaction; entries cannot be altered and contain no secret."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from common.access import Actor
from common.audit import ACTIONS, delete_old_entries, record_change
from tests.integration.api.access import bearer, make_named
from tests.integration.api.conftest import TINY_CONFIG, TOKEN, Api
from tests.integration.api.contract_resources import ANALYSIS, Resources

CHANGE_NOTHING = {
    "POST /api/generate",
    "POST /v1/completions",
    "POST /v1/chat/completions",
    "POST /api/analyze-trajectories",
    "POST /api/reports/render",
}
"""Operations other than GET that change nothing."""
OLD_ENTRY = """INSERT INTO audit_log (at, actor, action, target)
VALUES (now() - make_interval(days => :days), 'Ada', 'job.cancel', 'job_1')"""


def entries(api: Api, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.admin.get("/api/audit", params={"limit": 200, **filters}).json()["entries"]
    return found


def test_every_operation_that_changes_something_writes_exactly_one_entry(api: Api) -> None:
    resources = Resources(api)
    seen = set()
    for path, operations in api.admin.get("/openapi.json").json()["paths"].items():
        for method in set(operations) - {"get"}:
            label = f"{method.upper()} {path}"
            if label in CHANGE_NOTHING:
                continue
            valid = resources.valid(label)
            values = {**resources.path_values(), **valid.path}
            filled = re.sub(r"\{(\w+)\}", lambda found, values=values: values[found.group(1)], path)
            before = entries(api)
            content = {"content": valid.body} if isinstance(valid.body, bytes) else {"json": valid.body}
            reply = api.admin.request(method, filled, params=valid.query, **content)
            assert reply.is_success, (label, reply.text)
            new = entries(api)[: len(entries(api)) - len(before)]
            if valid.query.get("dryRun") or (reply.content and reply.json() == {"deleted": 0}):
                assert new == [], label
                continue
            [entry] = new
            seen.add(entry["action"])
            assert (entry["actor"], entry["tokenId"], entry["address"]) == ("administrator", None, "127.0.0.1"), label
            assert entry["requestId"] == reply.headers["x-request-id"]
            parts = entry["target"].split("/")  # a checkpoint is <experiment>/<name>
            assert all(part in filled or part in reply.text or part in str(valid.query) for part in parts), label
            assert entry["before"] is not None or entry["after"] is not None
    assert seen <= set(ACTIONS) and len(seen) > 10


def test_an_entry_shows_the_values_before_and_after_the_change(api: Api) -> None:
    token = make_named(api, "Ada", "submit")
    own = bearer(token["token"])
    job = api.http.post(
        "/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG, "name": "a"}, headers=own
    ).json()
    path = f"/api/experiments/{job['experimentId']}"
    for _ in range(2):  # a repeated request changes nothing
        assert api.http.patch(path, json={"name": "b", "notes": "x" * 600}, headers=own).status_code == 200
        assert api.http.post(f"/api/jobs/{job['id']}/signal", json={"signal": "resume"}, headers=own).status_code < 500
    api.http.post(f"/api/jobs/{job['id']}/cancel", headers=own).raise_for_status()
    [cancelled, changed, submitted] = entries(api, actor="Ada")
    assert cancelled["before"] == {"status": "pending", "desiredState": "run", "cancelRequested": False}
    assert cancelled["after"] == {"status": "cancelled", "desiredState": "stop", "cancelRequested": False}
    assert changed["before"] == {"name": "a", "notes": None}
    assert changed["after"] == {"name": "b", "notes": "x" * 500 + "…"}
    assert (submitted["action"], submitted["target"], submitted["before"]) == ("job.submit", job["id"], None)
    assert submitted["after"] == {"type": "lm-training", "name": "a", "experiment": job["experimentId"]}
    assert {entry["tokenId"] for entry in (cancelled, changed, submitted)} == {token["id"]}


def test_a_failed_or_repeated_request_writes_nothing(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"type": "lm-training", "config": TINY_CONFIG}
    first, second = (api.admin.post("/api/jobs", json=body, headers=key).json()["id"] for _ in range(2))
    assert first == second
    for method, path, sent in (
        ("POST", "/api/jobs", {"type": "lm-training", "configPath": "none.yaml"}),
        ("POST", "/api/jobs/job_x/cancel", None),
        ("POST", f"/api/jobs/{first}/signal", {"signal": "complete"}),
        ("PATCH", "/api/experiments/none", {"name": "b"}),
        ("DELETE", "/api/experiments/none", None),
        ("DELETE", "/api/datasets/none", None),
        ("POST", "/api/reports", {"title": "a", "markdown": "```chart\n{\n```"}),
        ("DELETE", "/api/tokens/tok_none", None),
    ):
        assert api.admin.request(method, path, json=sent).status_code in (404, 409, 422), path
    assert [entry["action"] for entry in entries(api)] == ["job.submit"]


def test_a_change_whose_entry_cannot_be_written_is_not_made(api: Api, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_log ADD CONSTRAINT closed CHECK (false) NOT VALID"))
    assert api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG}).status_code == 500
    assert api.admin.get("/api/jobs").json()["jobs"] == []


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_an_entry_can_be_neither_changed_nor_deleted(
    sessions: sessionmaker[Session], engine: Engine, statement: str
) -> None:
    with sessions.begin() as session:
        record_change(session, Actor("Ada"), "job.submit", "job_1", after={"name": "nul \x00"})
    with pytest.raises(DBAPIError, match="stays as it was written"), engine.begin() as connection:
        connection.execute(text(statement))


def test_the_retention_deletes_only_old_entries(sessions: sessionmaker[Session], engine: Engine) -> None:
    with engine.begin() as connection:
        for days in (400, 366, 364, 0):
            connection.execute(text(OLD_ENTRY), {"days": days})
    with sessions.begin() as session:
        assert delete_old_entries(session, 365) == 2
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_log")) == 2
        with pytest.raises(DBAPIError):
            connection.execute(text("DELETE FROM audit_log"))


def test_no_secret_reaches_the_log(api: Api, engine: Engine) -> None:
    secrets = [make_named(api, name, "admin")["token"] for name in ("Ada", "Bob")]
    job = api.http.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG}, headers=bearer(secrets[0]))
    assert job.status_code == 201
    with engine.connect() as connection:
        rows = "\n".join(connection.execute(text("SELECT a::text FROM audit_log a")).scalars())
        events = "\n".join(connection.execute(text("SELECT e::text FROM job_events e")).scalars())
    assert "Ada" in rows and "Ada" in events
    assert not [secret for secret in [*secrets, TOKEN] if secret in rows + events]


def test_entries_are_filtered_and_paged(api: Api) -> None:
    names = [f"token {number}" for number in range(5)]
    made = [make_named(api, name, "read")["id"] for name in names]
    api.admin.post("/api/reports", json={"title": "a", "markdown": "b"}).raise_for_status()
    assert [entry["target"] for entry in entries(api, action="token")] == made[::-1]
    assert [entry["target"] for entry in entries(api, action="token.create", target=made[2])] == [made[2]]
    assert entries(api, action="toke") == entries(api, actor="somebody") == []
    assert entries(api, since="2999-01-01T00:00:00Z") == []
    pages, cursor = [], None
    while True:
        page = api.admin.get("/api/audit", params={"limit": 4, **({"cursor": cursor} if cursor else {})}).json()
        pages.append([entry["id"] for entry in page["entries"]])
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert pages == [[6, 5, 4, 3], [2, 1]]
    for query in ({"since": "2020-01-01T00:00:00"}, {"action": "a b"}, {"cursor": "x"}):
        assert api.admin.get("/api/audit", params=query).status_code == 422


def test_saved_analyses_of_an_experiment_are_deleted_with_one_entry(api: Api) -> None:
    resources = Resources(api)
    path = f"/api/experiments/{resources.lm}/analyses"
    ids = [api.admin.post(path, json={"result": ANALYSIS}).json()["id"] for _ in range(2)]
    assert api.admin.delete(path).json()["deleted"] == 3
    [entry] = entries(api, action="analysis.delete")
    assert set(entry["before"]["analyses"]) == {*ids, resources.analysis}
