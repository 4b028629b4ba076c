"""Every error reply is a problem document, whichever part of the api detects the error."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import text

from common.config import Settings
from common.db import upgrade
from common.redis.keys import HEALTH
from services.health.healthcheck import find_problem as health_problem
from tests.integration.api.conftest import TINY_CONFIG, Api, RunApi, running


def assert_problem(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert body["type"] == f"urn:tidal:problem:{code}"
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"] and body["detail"] and isinstance(body["errors"], list)
    assert body["requestId"] == reply.headers["X-Request-ID"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/jobs/", 404, "not_found"),
        ("DELETE", "/api/jobs", 405, "method_not_allowed"),
        ("GET", "/api/jobs/job_nosuch", 404, "not_found"),
        ("GET", "/api/jobs/job_nosuch/events", 404, "not_found"),
        ("GET", "/api/jobs/job_nosuch/logs", 404, "not_found"),
        ("GET", "/api/jobs/job_nosuch/stream", 404, "not_found"),
        ("POST", "/api/jobs/job_nosuch/cancel", 404, "not_found"),
        ("GET", "/api/jobs/%00", 422, "invalid_input"),
        ("GET", "/api/jobs?limit=0", 422, "invalid_input"),
        ("GET", "/api/jobs?limit=lots", 422, "invalid_input"),
        ("GET", "/api/jobs?status=dancing", 422, "invalid_input"),
        ("GET", "/api/jobs?cursor=AAAA", 422, "invalid_input"),
        ("GET", "/api/jobs?cursor=%F0%9F%98%80", 422, "invalid_input"),
        ("GET", "/api/jobs/stream?since=yesterday", 422, "invalid_input"),
        ("GET", "/api/jobs/stream?since=99999999999999999999-1", 422, "invalid_input"),
        ("GET", "/api/stream", 422, "invalid_input"),
        ("GET", "/api/stream?topic=tides", 422, "invalid_input"),
        ("GET", "/api/stream?topic=jobs/", 422, "invalid_input"),
        ("GET", "/api/stream?topic=jobs@yesterday", 422, "invalid_input"),
        ("GET", "/api/experiments/nosuch", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/metrics", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/rl-metrics", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/status", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/config", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/evaluation", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/ablation", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/samples", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/checkpoints", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/checkpoints/final", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/stream", 404, "not_found"),
        ("GET", "/api/experiments/nosuch/metrics?maxPoints=2", 422, "invalid_input"),
        ("GET", "/api/experiments/nosuch/metrics?mode=eternal", 422, "invalid_input"),
        ("GET", "/api/configs/nosuch.yaml", 404, "not_found"),
    ],
)
def test_a_bad_request_is_answered_with_a_problem_document(
    api: Api, method: str, path: str, status: int, code: str
) -> None:
    assert_problem(api.admin.request(method, path), status, code)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"[" * 100_000, 400),
        (b'{"type": "lm-training", "name": "\\ud800"}', 422),
        (b'{"type": "lm-training", "name": "a\\u0000b"}', 422),
        (b'{"type": "lm-training", "priority": NaN}', 422),
        (b'{"type": "lm-training", "config": {"training": {"learning_rate": Infinity}}}', 422),
        (b"\xff\xfe", 422),
    ],
)
def test_an_invalid_job_is_rejected_and_nothing_is_written(api: Api, content: bytes, status: int) -> None:
    reply = api.admin.post("/api/jobs", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert api.http.get("/api/jobs").json()["jobs"] == []


def test_half_a_surrogate_pair_is_rejected_anywhere_in_a_body(api: Api) -> None:
    document = api.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    seen = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None:
                continue
            openai = path.startswith("/v1/")
            for name in schemas[body["schema"]["$ref"].rpartition("/")[2]]["properties"]:
                for value, place in (
                    ("\ud800", name),
                    (["x", "a\udfffb"], f"{name}.1"),
                    ({"a": [{"\ud83d": 1}]}, f"{name}.a.0.\\ud83d"),
                ):
                    reply = api.admin.request(
                        method,
                        path.replace("{", "").replace("}", ""),
                        content=json.dumps({name: value}),
                        headers={"Content-Type": "application/json"},
                    )
                    seen += 1
                    assert reply.status_code == (400 if openai else 422), reply.text
                    assert "half of a surrogate pair" in reply.text
                    if openai:
                        assert reply.json()["error"]["param"] == name
                    else:
                        assert f"body.{place}" in [item["location"] for item in reply.json()["errors"]]
    assert seen > 150
    # A complete surrogate pair is one character, even if JSON writes it as two escapes.
    reply = api.admin.post(
        "/api/reports",
        headers={"Content-Type": "application/json"},
        content=b'{"title": "\\ud83d\\ude00", "markdown": ""}',
    )
    assert (reply.status_code, reply.json()["title"]) == (201, "😀")


def test_half_a_surrogate_pair_outside_the_body_causes_no_server_error(api: Api) -> None:
    half = "%ED%A0%80"  # half of a surrogate pair, as UTF-8 would encode it if it were allowed
    for path in (
        f"/api/jobs/{half}",
        f"/api/jobs?tag={half}&experimentId={half}",
        f"/api/experiments?search={half}",
        f"/api/experiments/{half}/checkpoints/{half}",
        f"/api/configs/{half}.yaml",
        f"/api/datasets/{half}",
        f"/api/reports?search={half}&experiment={half}",
        f"/v1/models/{half}",
    ):
        assert api.admin.get(path).status_code in (200, 400, 404, 422), path
    assert api.admin.post(f"/api/datasets?name={half}", content=b"text").status_code == 422
    for header in ("Idempotency-Key", "Last-Event-ID", "X-Request-ID", "Authorization", "If-None-Match"):
        raw = [(header.encode(), b"\xed\xa0\x80")]
        assert api.http.get("/api/jobs", headers=raw).status_code == 200
        reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG}, headers=raw)
        assert reply.status_code in (201, 401, 422), header
        assert api.http.get("/api/jobs/nosuch/stream", headers=raw).status_code in (404, 422)


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, "body.type"),
        ({"type": "juggling"}, "body.type"),
        ({"type": "lm-training", "colour": 1}, "body.colour"),
        ({"type": "lm-training", "priority": 101}, "body.priority"),
        ({"type": "lm-training", "priority": "high"}, "body.priority"),
        ({"type": "lm-training", "gpus": 2}, "body.gpus"),
        ({"type": "lm-training", "tags": "demo"}, "body.tags"),
        ({"type": "lm-training", "tags": ["no spaces"]}, "body.tags.0"),
        ({"type": "lm-training", "notBefore": "2030-01-01T00:00:00"}, "body.notBefore"),
        ({"type": "lm-training", "config": []}, "body.config"),
        ({"type": "lm-training", "config": {"model": {"d_model": 17}}}, "body.config.model"),
        ({"type": "lm-training", "config": {"model": {"d_mdel": 16}}}, "body.config.model.d_mdel"),
        ({"type": "lm-training", "rlCheckpoint": "a/b"}, "body.rlCheckpoint"),
        ({"type": "lm-training", "data": {"source": "x"}}, "body.data"),
        ({"type": "lm-training", "resumeFrom": "job_nosuch"}, "body.resumeFrom"),
        ({"type": "rl-training"}, "body.checkpoint"),
        ({"type": "rl-training", "checkpoint": "nosuch/final"}, "body.checkpoint"),
        ({"type": "ablation", "checkpoint": "../../etc/passwd"}, "body.checkpoint"),
    ],
)
def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], location: str) -> None:
    reply = api.admin.post("/api/jobs", json=body)
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.status_code in (404, 422)
    assert location in [item["location"] for item in reply.json()["errors"]]


def test_a_body_without_the_content_type_of_json_is_rejected(api: Api) -> None:
    reply = api.admin.post("/api/jobs", data={"type": "lm-training"})
    assert "application/json" in assert_problem(reply, 415, "unsupported_media_type")["detail"]


def test_an_unknown_configuration_key_names_the_nearest_one(api: Api) -> None:
    reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": {"training": {"lerning_rate": 1}}})
    assert "did you mean 'learning_rate'" in assert_problem(reply, 422, "invalid_config")["detail"]


def test_a_valid_request_id_from_the_client_is_used(api: Api) -> None:
    assert api.http.get("/healthz", headers={"X-Request-ID": "abc-123"}).headers["X-Request-ID"] == "abc-123"
    replaced = api.http.get("/healthz", headers={"X-Request-ID": "two words"}).headers["X-Request-ID"]
    assert len(replaced) == 32


def test_a_body_over_one_mebibyte_is_refused(api: Api) -> None:
    body = b'{"type": "lm-training", "name": "' + b"x" * (1024 * 1024) + b'"}'
    announced = api.admin.post("/api/jobs", content=body, headers={"Content-Type": "application/json"})
    assert_problem(announced, 413, "body_too_large")
    chunked = api.admin.post(
        "/api/jobs",
        content=(body[i : i + 65536] for i in range(0, len(body), 65536)),
        headers={"Content-Type": "application/json"},
    )
    assert_problem(chunked, 413, "body_too_large")


def test_a_body_of_almost_one_mebibyte_is_read(api: Api) -> None:
    body = {"type": "lm-training", "config": TINY_CONFIG, "colour": "x" * (1024 * 1024 - 1000)}
    assert_problem(api.admin.post("/api/jobs", json=body), 422, "invalid_input")


def test_a_bad_request_line_is_not_a_server_error(api: Api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"GET /api/jobs?cursor=\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = raw.recv(4096).split(b" ", 2)[1]
    assert status in (b"400", b"422")


def test_an_internal_error_is_a_problem_without_details(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("services.api.operations.jobs.jobs_page", broken)
    body = assert_problem(api.http.get("/api/jobs"), 500, "internal")
    assert "hunter2" not in str(body)
    assert api.http.get("/healthz").status_code == 200


def test_a_database_that_is_not_migrated_gets_a_clear_error(settings: Settings, empty_database_url: str) -> None:
    with running(settings, database_url=empty_database_url) as api:
        ready = assert_problem(api.http.get("/readyz"), 503, "not_ready")
        assert [item["location"] for item in ready["errors"]] == ["schema"]
        assert "tidal db migrate" in ready["detail"]
        for reply in (api.http.get("/api/jobs"), api.http.get("/api/experiments"), api.http.get("/api/jobs/stream")):
            assert "tidal db migrate" in assert_problem(reply, 503, "database_not_migrated")["detail"]
        submitted = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG})
        assert "no Tidal tables" in assert_problem(submitted, 503, "database_not_migrated")["detail"]
        assert "tidal_database_up 0.0" in api.http.get("/metrics").text


def test_no_job_is_submitted_to_a_database_of_a_later_version(settings: Settings, empty_database_url: str) -> None:
    upgrade(empty_database_url)
    with running(settings, database_url=empty_database_url) as api:
        with api.context.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        submitted = api.admin.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG})
        assert "update Tidal" in assert_problem(submitted, 503, "database_not_migrated")["detail"]
        assert api.http.get("/api/jobs").json()["jobs"] == []


def test_unavailable_services_are_named_and_the_process_keeps_running(serve: RunApi) -> None:
    absent = {
        "database_url": "postgresql+psycopg://tidal@127.0.0.1:1/tidal",
        "redis_url": "redis://127.0.0.1:1/0",
    }
    with serve(**absent) as api:
        ready = assert_problem(api.http.get("/readyz"), 503, "not_ready")
        assert {item["location"] for item in ready["errors"]} == {"database", "schema", "redis"}
        assert_problem(api.http.get("/api/jobs"), 503, "unavailable")
        assert api.http.get("/healthz").status_code == 200


def test_readyz_reports_ready(api: Api) -> None:
    assert api.http.get("/readyz").json()["ready"] is True


def test_readyz_and_the_check_of_health_report_missing_maintenance_passes(
    api: Api, settings: Settings, redis_client: redis.Redis
) -> None:
    ready = api.http.get("/readyz").json()
    assert ready["ready"] is True
    assert (ready["parts"]["sweeps"]["ok"], ready["parts"]["sweeps"]["required"]) == (False, False)
    assert "python -m services.health" in ready["parts"]["sweeps"]["detail"]
    assert health_problem(settings) == ready["parts"]["sweeps"]["detail"]
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    redis_client.hset(HEALTH, mapping={"sweptAt": long_ago, "trouble": "no such column"})
    assert "no such column" in api.http.get("/readyz").json()["parts"]["sweeps"]["detail"]
    assert "no such column" in health_problem(settings)
    redis_client.hset(HEALTH, mapping={"sweptAt": datetime.now(UTC).isoformat(), "trouble": ""})
    assert api.http.get("/readyz").json()["parts"]["sweeps"] == {"ok": True, "detail": "ok", "required": False}
    assert health_problem(settings) == ""


def test_submissions_are_accepted_while_redis_is_unavailable(serve: RunApi) -> None:
    with serve(redis_url="redis://127.0.0.1:1/0") as api:
        job = api.submit()
        assert api.http.get(f"/api/jobs/{job['id']}").json()["status"] == "pending"
        assert_problem(api.http.get("/api/jobs/stream"), 503, "unavailable")
        assert_problem(api.http.get("/api/stream?topic=jobs&topic=jobs/nosuch"), 503, "unavailable")
