"""A revoked or expired token is refused, and its streams, calls and generations end, within a second in every process.

Two api processes share the database: one runs in the test process, the other is started by `two_processes`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.redis.generation_request import GenerationRequest
from services.api import token_register
from services.local.servers import PostgresServer
from tests.integration.api.access import bearer, make_named, revoke, without_database
from tests.integration.api.api_process import address_of, process
from tests.integration.api.conftest import TLS, TOKEN, Api, RunApi, events_of
from tests.integration.api.engine_stand_in import Engine, make_checkpoint
from tests.integration.api.engine_stand_in import engine as engine
from tidal_client import read_events

BOUND_SECONDS = 1.0


class Ending(threading.Thread):
    """Sends a request in a thread, and records how and when it ended."""

    def __init__(self, url: str, token: str, method: str, path: str, body: Any = None) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        """Set when the first event of a stream has arrived."""
        self.ended_at = 0.0
        self.status = 0
        self.last: dict[str, Any] = {}
        """The last event of a stream, or the body of another reply."""
        self.cut_off = False
        """Whether the server has closed the connection in the middle of the reply."""
        self._request = (method, path, body)
        self._client = httpx.Client(base_url=url, headers=bearer(token), timeout=30, verify=TLS)
        self.start()

    def run(self) -> None:
        try:
            self._read()
        except httpx.RemoteProtocolError:
            self.cut_off = True
        self.ended_at = time.monotonic()

    def _read(self) -> None:
        method, path, body = self._request
        with self._client, self._client.stream(method, path, json=body) as reply:
            self.status = reply.status_code
            if reply.headers["content-type"].startswith("text/event-stream"):
                for event in read_events(reply):
                    self.last = event.data
                    self.begun.set()
            else:
                reply.read()
                self.last = reply.json()


@pytest.fixture
def two_processes(serve: RunApi, tmp_path: Path) -> Iterator[tuple[Api, str]]:
    """Run two api processes with closed reads; yield the first, and the URL of the second."""
    with serve(require_auth_for_reads=True) as first:
        environment = {
            "TIDAL_DATABASE_URL": first.settings.database_url.get_secret_value(),
            "TIDAL_REDIS_URL": first.settings.redis_url.get_secret_value(),
            "TIDAL_EXPERIMENTS_DIR": str(first.settings.experiments_dir),
            "TIDAL_AUTH_TOKEN": TOKEN,
            "TIDAL_REQUIRE_AUTH_FOR_READS": "true",
            "TIDAL_PORT": "0",
        }
        with process(tmp_path, **environment) as started:
            yield first, address_of(started)


@contextmanager
def endless(engine: Engine) -> Iterator[dict[str, float]]:
    """Let the engine begin every request and generate until it is cancelled; yield {request: time of the end}."""
    cancelled: dict[str, float] = {}

    def generate(engine: Engine, request: GenerationRequest) -> None:
        def run() -> None:
            if request.stream:
                engine.event(request.id, "token", {"index": 0, "text": "a", "token": "a", "logProb": -1.0})
            engine.until_cancelled(request.id)
            cancelled[request.id] = time.monotonic()

        threading.Thread(target=run, daemon=True).start()

    engine.answer = generate
    yield cancelled


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> float:
    """Wait until `condition` is true and return the monotonic time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        threading.Event().wait(0.005)
    return time.monotonic()


def test_a_revocation_ends_streams_calls_and_generations_in_both_processes(
    two_processes: tuple[Api, str], engine: Engine
) -> None:
    first, second_url = two_processes
    model = make_checkpoint(first)
    token = make_named(first, "Ada", "submit", "generate")
    other = make_named(first, "Bob", "read")
    with endless(engine) as cancelled:
        prompt = {"checkpoint": model, "prompt": "Tom"}
        completion = {"model": model, "prompt": "Tom"}
        streams = [
            Ending(url, token["token"], method, path, body)
            for url in (first.url, second_url)
            for method, path, body in (
                ("GET", "/api/jobs/stream", None),
                ("GET", "/api/stream?topic=jobs", None),
                ("POST", "/api/generate", {**prompt, "stream": True}),
                ("POST", "/v1/completions", {**completion, "stream": True}),
            )
        ]
        calls = [
            Ending(url, token["token"], "POST", path, body)
            for url in (first.url, second_url)
            for path, body in (("/api/generate", prompt), ("/v1/completions", completion))
        ]
        kept = Ending(second_url, other["token"], "GET", "/api/jobs/stream")
        assert all(stream.begun.wait(20) for stream in [*streams, kept])
        wait_until(lambda: len(engine.requests) == 8)

        revoke(first, token)
        revoked_at = time.monotonic()
        for url in (first.url, second_url):
            with httpx.Client(base_url=url, headers=bearer(token["token"]), verify=TLS) as client:
                refused_at = wait_until(lambda client=client: client.get("/api/jobs").status_code == 401)
                assert refused_at - revoked_at < BOUND_SECONDS
        for ending in [*streams, *calls]:
            ending.join(10)
            assert 0 < ending.ended_at - revoked_at < BOUND_SECONDS, ending._request
            assert not ending.cut_off, ending._request
        wait_until(lambda: len(cancelled) == 8)
        assert max(cancelled.values()) - revoked_at < BOUND_SECONDS
        for stream in streams:
            error = stream.last.get("error", stream.last)
            assert error["code"] == "token_ended", stream._request
        assert [call.status for call in calls] == [401] * 4
        assert calls[0].last["code"] == calls[1].last["error"]["code"] == "token_ended"

        kept.begun.clear()
        first.submit()
        assert kept.begun.wait(10) and kept.is_alive(), "the stream of another token continues"


def test_an_expired_token_ends_its_stream_although_nothing_is_requested(serve: RunApi) -> None:
    with serve(require_auth_for_reads=True) as api:
        ends = datetime.now(UTC) + timedelta(seconds=2)
        token = make_named(api, "short", "read", expiresAt=ends.isoformat())
        stream = Ending(api.url, token["token"], "GET", "/api/jobs/stream")
        stream.join(10)
        assert timedelta(0) <= datetime.now(UTC) - ends < timedelta(seconds=BOUND_SECONDS)
        assert stream.last["code"] == "token_ended"


def test_a_generation_ends_although_its_client_reads_nothing(serve: RunApi, engine: Engine) -> None:
    with serve() as api:
        token = make_named(api, "Ada", "generate")
        body = {"checkpoint": make_checkpoint(api), "prompt": "Tom", "stream": True}

        def flood(engine: Engine, request: GenerationRequest) -> None:
            for index in range(300):
                engine.event(request.id, "token", {"index": index, "text": "a" * 100_000})
            engine.until_cancelled(request.id)

        engine.answer = flood
        with api.http.stream("POST", "/api/generate", json=body, headers=bearer(token["token"])):
            wait_until(lambda: any(one.sending_since is not None for one in api.context.stream_clients._open))
            revoke(api, token)
            assert engine.left.wait(5)


def test_streams_survive_a_short_outage_of_the_database_and_end_in_a_long_one(
    serve: RunApi, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(require_auth_for_reads=True) as api:
        url = api.settings.database_url.get_secret_value()
        token = make_named(api, "Ada", "read")
        stream = Ending(api.url, token["token"], "GET", "/api/jobs/stream")
        assert stream.begun.wait(10)
        with without_database(postgres, url):
            wait_until(lambda: not api.context.tokens._answers)
        wait_until(lambda: api.context.tokens._answers)
        assert stream.is_alive()
        monkeypatch.setattr(token_register, "UNCONFIRMED_SECONDS", 0.5)
        with without_database(postgres, url):
            stream.join(10)
        assert stream.last["code"] == "token_not_checked"
        with events_of(httpx.Client(base_url=api.url, headers=bearer(token["token"]), verify=TLS), "/api/jobs/stream"):
            pass  # it can be opened again
