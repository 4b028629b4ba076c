"""Clients that send slowly, send nothing or open too many connections. The tests use real sockets and real time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest

from services.api.connections import SPARE
from tests.integration.api.conftest import BEARER, RunApi, events_of

HALF_HEADER = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def address(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    assert parsed.port is not None
    return parsed.host, parsed.port


@contextmanager
def connected(url: str, first: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address(url), timeout=10) as client:
        client.sendall(first)
        yield client


def rest_of(client: socket.socket) -> bytes:
    """Return all bytes that arrive until the server closes the connection."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def half_body(path: str, length: int = 1000, content_type: str = "application/json") -> bytes:
    token = BEARER["Authorization"]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n{{".encode()


def one_reply(client: socket.socket) -> bytes:
    """Read one reply that has a content length; the connection stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += client.recv(65536)
    return received


def test_a_connection_that_sends_nothing_is_closed_without_a_reply(serve: RunApi) -> None:
    with serve(request_header_seconds=0.5) as api, connected(api.url) as client:
        started = time.monotonic()
        assert rest_of(client) == b""
        assert 0.4 < time.monotonic() - started < 5


def trickle(client: socket.socket, byte: bytes, *, every: float) -> bytes:
    """Send `byte` repeatedly, with a pause of `every` seconds, until the server replies; return the start of the reply.

    Stops after 10 s without a reply.
    """
    started = time.monotonic()
    client.settimeout(every)
    while time.monotonic() - started < 10:
        client.sendall(byte)
        with suppress(TimeoutError):
            return client.recv(65536)
    return b""


def test_a_header_that_does_not_end_is_answered_408_however_it_trickles(serve: RunApi) -> None:
    with serve(request_header_seconds=1.0) as api, connected(api.url, HALF_HEADER) as client:
        started = time.monotonic()
        received = trickle(client, b"x", every=0.1)
        assert time.monotonic() - started < 5
        assert received.startswith(b"HTTP/1.1 408 ") and b"connection: close" in received.lower()
        assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


def test_the_header_of_a_second_request_has_the_same_time_limit(serve: RunApi) -> None:
    with serve(request_header_seconds=0.5) as api, connected(api.url, WHOLE) as client:
        assert b"200 OK" in one_reply(client)
        time.sleep(1.2)  # the time limit of the header does not cover the pause between two requests
        client.sendall(WHOLE)
        assert b"200 OK" in one_reply(client)
        client.sendall(WHOLE + HALF_HEADER)
        assert b"200 OK" in one_reply(client)
        assert rest_of(client).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_after_its_time_and_not_before(serve: RunApi) -> None:
    with serve(keep_alive_seconds=1.0, request_header_seconds=0.2) as api, connected(api.url, WHOLE) as client:
        assert b"200 OK" in one_reply(client)
        started = time.monotonic()
        assert rest_of(client) == b""
        assert 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("path", "place"),
    [("/api/jobs", "code"), ("/v1/completions", "error"), ("/api/datasets?name=stories.txt", "code")],
)
def test_a_body_that_stops_is_answered_408_in_the_error_format_of_its_path(
    serve: RunApi, path: str, place: str
) -> None:
    with serve(request_body_seconds=0.5) as api, connected(api.url, half_body(path)) as client:
        received = rest_of(client)
        assert received.startswith(b"HTTP/1.1 408 ")
        found = json.loads(received.partition(b"\r\n\r\n")[2])
        assert (found[place] if place == "code" else found["error"]["code"]) == "request_timeout"
        assert api.http.get("/healthz").status_code == 200


def test_a_body_that_trickles_below_the_rate_is_answered_408(serve: RunApi) -> None:
    with (
        serve(request_body_seconds=1.0, request_body_rate=1000) as api,
        connected(api.url, half_body("/api/jobs", 100_000)) as client,
    ):
        received = trickle(client, b" ", every=0.2)
        assert received.startswith(b"HTTP/1.1 408 ")


def test_a_body_above_the_rate_may_take_any_time_and_pause(serve: RunApi) -> None:
    text = b"Once upon a time there was a tide.\n" * 40
    with serve(request_body_seconds=0.6, request_body_rate=100) as api:
        started = time.monotonic()

        def slowly() -> Iterator[bytes]:
            for at in range(0, len(text), 100):
                yield text[at : at + 100]
                time.sleep(0.3 if at % 200 else 0.1)

        reply = api.admin.post("/api/datasets?name=slow.txt", content=slowly())
        assert time.monotonic() - started > 2 * 0.6
        assert reply.status_code == 201, reply.text


def test_a_client_that_expects_100_continue_sends_its_body_after_it(serve: RunApi) -> None:
    body = b'{"type": "nothing"}'
    head = half_body("/api/jobs", len(body))[:-1].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with serve() as api, connected(api.url, head) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert b"422 " in client.recv(65536)


def test_a_body_refused_early_does_not_hold_its_connection(serve: RunApi) -> None:
    """The client announces a body, gets a 404 before it has sent the body, and never sends it.

    The server must then close the connection.
    """
    with (
        serve(request_body_seconds=0.5) as api,
        connected(api.url, half_body("/nowhere", 10_000)) as client,
    ):
        assert b"404 " in one_reply(client)
        assert rest_of(client) == b""


def test_http_1_0_clients_and_pipelined_requests_are_served(serve: RunApi) -> None:
    with serve() as api:
        with connected(api.url, b"GET /healthz HTTP/1.0\r\n\r\n") as client:
            assert b"200 OK" in rest_of(client)
        with connected(api.url, WHOLE * 3) as client:
            client.shutdown(socket.SHUT_WR)
            client.settimeout(3)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 3:
                received += client.recv(65536)


def test_at_the_cap_the_connection_idle_longest_makes_room(serve: RunApi) -> None:
    with serve(max_connections=24) as api, ExitStack() as stack:
        api.http.close()  # otherwise the connections of the fixture's client count as well
        first = [stack.enter_context(connected(api.url, HALF_HEADER)) for _ in range(20)]
        time.sleep(0.3)
        first[0].sendall(b"x")  # this makes the connection the most recently active one
        time.sleep(0.3)
        for _ in range(SPARE - 5):
            stack.enter_context(connected(api.url))
        assert rest_of(first[1]) == b""
        first[0].sendall(b"\r\n\r\n")
        assert b"200 OK" in one_reply(first[0])


def test_at_the_cap_health_checks_pass_and_others_get_503_with_retry_after(serve: RunApi) -> None:
    with serve(max_connections=16) as api, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(api.url, half_body("/api/jobs")))
        with httpx.Client(base_url=api.url, timeout=10) as http:
            assert http.get("/healthz").status_code == 200
        with httpx.Client(base_url=api.url, timeout=10) as http:
            assert http.get("/readyz").status_code == 200
        for path, code in (("/api/jobs", "code"), ("/v1/models", "error")):
            with httpx.Client(base_url=api.url, timeout=10) as http:
                reply = http.get(path)
            assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
            found: Any = reply.json()
            assert (found[code] if code == "code" else found["error"]["code"]) == "too_many_connections"
            assert reply.headers["connection"] == "close"


def test_stalled_bodies_make_room_at_the_cap(serve: RunApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.connections.STALLED_SECONDS", 0.5)
    with serve(max_connections=16) as api, ExitStack() as stack:
        stalled = [stack.enter_context(connected(api.url, half_body("/api/jobs"))) for _ in range(16)]
        time.sleep(1.5)
        for _ in range(2):
            stack.enter_context(connected(api.url))
            time.sleep(0.2)
        with httpx.Client(base_url=api.url, timeout=10) as http:
            assert http.get("/api/jobs").status_code == 200
        assert rest_of(stalled[0]) == b""


def test_streams_have_half_of_the_connections_and_lose_nothing(serve: RunApi) -> None:
    with serve(max_connections=16) as api, ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=api.url, timeout=20)) for _ in range(9)]
        opened = [stack.enter_context(events_of(client, "/api/jobs/stream")) for client in clients[:8]]
        for events in opened:
            assert events.take(1)[0].name == "snapshot"
        refused = clients[8].get("/api/jobs/stream")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "5"
        assert refused.json()["code"] == "too_many_streams"
        completion = clients[8].post("/v1/completions", json={"model": "x", "prompt": "y", "stream": True})
        assert completion.status_code == 503 and completion.json()["error"]["code"] == "too_many_streams"
        for _ in range(2 * SPARE):
            stack.enter_context(connected(api.url, HALF_HEADER))
        job = api.submit()
        for events in opened:
            update = events.take(1)[0]
            assert update.name == "job-update" and update.data["id"] == job["id"]


def test_a_client_that_does_not_read_its_reply_is_closed(serve: RunApi) -> None:
    with serve(request_body_seconds=0.5) as api:
        job = api.submit()
        log = api.experiment_folder(job["experimentId"]) / "logs" / "1.log"
        log.parent.mkdir()
        log.write_bytes(b"A line of a log.\n" * 2**21)
        path = f"/api/jobs/{job['id']}/logs/download"
        with connected(api.url, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()) as client:
            time.sleep(3)
            received = rest_of(client)
            assert b"200 OK" in received[:100], received[:300]
            assert len(received) < log.stat().st_size
        assert "unread_reply" in api.http.get("/metrics").text


def test_a_stop_does_not_wait_for_half_a_header(serve: RunApi) -> None:
    with serve() as api:
        client = socket.create_connection(address(api.url))
        client.sendall(HALF_HEADER)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    client.close()
