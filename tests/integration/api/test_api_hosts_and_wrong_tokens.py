"""The host names that the api accepts, and its treatment of wrong tokens."""

from __future__ import annotations

import logging
import socket
import threading
import time

import httpx
import openai
import pytest

from common.access import rejections
from tests.integration.api.conftest import BEARER, Api, RunApi

WRONG = {"Authorization": "Bearer a-guess-of-somebody"}
KNOWN = [
    "localhost",
    "localhost:1",
    "LOCALHOST.",
    "app.localhost:3000",
    "127.0.0.1",
    "10.1.2.3:80",
    "[::1]:4400",
    "[fe80::1]",
]
UNKNOWN = [
    "evil.example",
    "evil.example:4400",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "notlocalhost",
    "a@127.0.0.1",
]


@pytest.mark.parametrize("host", [*KNOWN, socket.gethostname(), f"{socket.gethostname().split('.')[0]}.local:4400"])
def test_ip_addresses_localhost_and_the_host_name_are_accepted(api: Api, host: str) -> None:
    assert api.http.get("/api/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", UNKNOWN)
def test_a_page_that_rebinds_its_name_reads_nothing(api: Api, host: str) -> None:
    """DNS rebinding fails on every path, including the dashboard and the API reference, even with the token."""
    for path in ("/api/jobs", "/", "/docs", "/openapi.json", "/metrics", "/api/session", "/nothing"):
        reply = api.admin.get(path, headers={"Host": host})
        assert reply.status_code == 421, path
        body = reply.json()
        assert (body["code"], body["requestId"]) == ("unknown_host", reply.headers["X-Request-ID"])
        assert "TIDAL_ALLOWED_HOSTS" in body["detail"]
    reply = api.admin.post("/v1/completions", json={"model": "a/b", "prompt": "x"}, headers={"Host": host})
    assert reply.status_code == 421 and reply.json()["error"]["code"] == "unknown_host"
    for path in ("/healthz", "/readyz"):
        assert api.http.get(path, headers={"Host": host}).status_code == 200, "health answers under any name"


def test_further_names_come_from_the_setting(serve: RunApi) -> None:
    with serve(allowed_hosts="tidal.example.org,*.lab.example") as api:
        for host, status in (
            ("tidal.example.org", 200),
            ("TIDAL.example.org:443", 200),
            ("gpu1.lab.example", 200),
            ("lab.example", 421),
            ("evil-lab.example", 421),
            ("www.tidal.example.org", 421),
        ):
            assert api.http.get("/api/jobs", headers={"Host": host}).status_code == status, host


def test_below_a_sub_path_health_is_exempt_as_well(serve: RunApi) -> None:
    with serve(root_path="/tidal") as api:
        for path in ("/healthz", "/tidal/healthz"):
            assert api.http.get(path, headers={"Host": "lb.internal"}).status_code == 200
        assert api.http.get("/tidal/api/jobs", headers={"Host": "lb.internal"}).status_code == 421


def test_a_request_without_a_host_header_is_not_from_a_browser_and_is_answered(api: Api) -> None:
    url = httpx.URL(api.url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as raw:
        raw.sendall(b"GET /api/jobs HTTP/1.0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 200")


def test_wrong_tokens_are_slowed_down_and_logged_without_their_value(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong() -> float:
        began = time.monotonic()
        assert api.http.post("/api/jobs/job_secret-id/cancel", headers=WRONG).status_code == 401
        return time.monotonic() - began

    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            wrong()
        assert wrong() >= 0.25
        assert wrong() >= 0.5, "the delay doubles"
        assert api.http.post("/api/jobs/x/cancel", headers=BEARER).status_code == 404, "the right token is not delayed"
        # GET /api/session needs no token and returns no error for a wrong one, but still counts it.
        assert api.http.get("/api/session", headers=WRONG).json()["name"] is None
        assert api.http.get("/api/jobs", headers=WRONG).status_code == 200, "an open endpoint ignores it"
    lines = [record.getMessage() for record in caplog.records if "a token was rejected" in record.getMessage()]
    assert len(lines) == 10
    assert "127.0.0.1" in lines[0] and "/api/jobs/{job_id}/cancel" in lines[0] and "POST" in lines[0]
    assert "a-guess" not in caplog.text and "secret-id" not in caplog.text
    assert "tidal_rejected_tokens_total 13.0" in api.http.get("/metrics").text


def test_a_flood_of_guesses_is_rejected_without_affecting_the_right_token(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejections, "FIRST_DELAY_SECONDS", 2.0)
    for _ in range(rejections.FREE):
        api.http.post("/api/jobs", headers=WRONG, json={})
    replies: list[httpx.Response] = []

    def guess() -> None:
        replies.append(httpx.post(f"{api.url}/api/jobs", headers=WRONG, json={}, timeout=30))

    guesses = [threading.Thread(target=guess) for _ in range(20)]
    for thread in guesses:
        thread.start()
    while len(replies) < 20 - rejections.MOST_WAITING:  # then only MOST_WAITING requests are still delayed
        time.sleep(0.01)
    assert api.http.post("/api/jobs/x/cancel", headers=BEARER).status_code == 404
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=BEARER["Authorization"][7:], max_retries=0) as client:
        assert list(client.models.list()) == []
    for thread in guesses:
        thread.join(30)
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(refused) == 20 - rejections.MOST_WAITING
    assert {reply.json()["code"] for reply in refused} == {"too_many_wrong_tokens"}
    assert all(1 <= int(reply.headers["retry-after"]) <= 60 for reply in refused)
    assert {reply.status_code for reply in replies} == {401, 429}


def test_behind_a_trusted_proxy_the_forwarded_address_counts(
    serve: RunApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(trusted_proxies="127.0.0.1") as api, caplog.at_level(logging.WARNING):
        for last in range(3):
            api.http.post("/api/jobs", headers={**WRONG, "X-Forwarded-For": f"203.0.113.{last}"}, json={})
        assert len(api.context.rejections) == 3
        assert "203.0.113.2" in caplog.text
