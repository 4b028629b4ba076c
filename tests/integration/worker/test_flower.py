"""Flower with a real broker requires the login, and accepts only known host names."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from services.local.servers import free_port
from tests.integration.worker.workers import Workers

LOGIN = ("tidal", "pw")
PAGES = ("/", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks", "/static/css/flower.css")


@pytest.fixture
def client(workers: Workers) -> Iterator[httpx.Client]:
    """Return a client without login, for a running Flower that allows one host name and trusts one proxy."""
    port = free_port()
    workers.start(
        "flower",
        "services.worker.flower",
        TIDAL_FLOWER_PORT=str(port),
        TIDAL_FLOWER_PASSWORD="pw",
        TIDAL_ALLOWED_HOSTS="flower.example",
        TIDAL_TRUSTED_PROXIES="127.0.0.1",
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:

        def up() -> bool:
            try:
                return client.get("/healthcheck").status_code == 200
            except httpx.TransportError:
                return False

        workers.wait_for(up, "Flower to answer", 60)
        yield client


def test_flower_answers_only_with_the_login(client: httpx.Client) -> None:
    for page in PAGES:
        missing = client.get(page)
        assert (missing.status_code, missing.headers["www-authenticate"][:5]) == (401, "Basic"), page
        shown = client.get(page, auth=LOGIN)
        assert shown.status_code == 200, page
        for reply in (missing, shown):
            assert reply.headers["x-frame-options"] == "DENY", page
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"], page
    assert client.get("/workers", auth=("tidal", "wrong")).status_code == 401
    assert client.get("/nothing").status_code == 401
    assert client.get("/nothing", auth=LOGIN).status_code == 404
    assert client.get("/login").status_code == 401
    sent = client.post("/api/task/send-task/tidal.training.doorbell", auth=LOGIN, json={"args": ["training"]})
    assert sent.status_code in (403, 404)
    # Flower's page of tasks loads its table with this request.
    assert client.get("/tasks/datatable?draw=1&start=0&length=5&order[0][column]=0", auth=LOGIN).status_code == 200


def test_the_cookie_is_hidden_from_scripts_and_other_sites(client: httpx.Client) -> None:
    plain = client.get("/workers", auth=LOGIN).headers["set-cookie"]
    assert "_xsrf=" in plain and "HttpOnly" in plain and "SameSite=Strict" in plain and "Secure" not in plain
    client.cookies.clear()
    by_proxy = client.get("/workers", auth=LOGIN, headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    assert "Secure" in by_proxy


def test_flower_answers_for_known_host_names_only(client: httpx.Client) -> None:
    for host, status in (("flower.example", 200), ("localhost:5555", 200), ("[::1]:1", 200), ("evil.example", 421)):
        for page in ("/workers", "/static/css/flower.css"):
            assert client.get(page, auth=LOGIN, headers={"Host": host}).status_code == status, (host, page)
    assert client.get("/healthcheck", headers={"Host": "evil.example"}).status_code == 200
    assert "TIDAL_ALLOWED_HOSTS" in client.get("/workers", headers={"Host": "evil.example"}).text


def test_wrong_logins_are_logged_and_delayed_and_the_right_one_is_accepted(
    client: httpx.Client, workers: Workers
) -> None:
    def wrong(address: str) -> float:
        began = time.monotonic()
        reply = client.get("/workers", auth=("tidal", "guess-123"), headers={"X-Forwarded-For": address})
        assert reply.status_code == 401
        return time.monotonic() - began

    for _ in range(10):
        wrong("203.0.113.7")
    assert wrong("203.0.113.7") >= 0.25
    assert wrong("203.0.113.7") >= 0.5, "the delay doubles"
    right = client.get("/api/tasks", auth=LOGIN, headers={"X-Forwarded-For": "203.0.113.7"})
    assert right.status_code == 200
    text = workers.log("flower").read_text()
    assert text.count("a login was rejected") == 10, (
        "the eleventh and the twelfth rejection are counted without a log line"
    )
    assert "203.0.113.7" in text and "guess-123" not in text
