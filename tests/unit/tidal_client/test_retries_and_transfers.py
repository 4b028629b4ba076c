"""Requests are repeated only if that is safe; transfers report their progress; `wait` has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit import api_documents as documents
from tidal_client import (
    AsyncClient,
    Client,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)

Answer = httpx.Response | httpx.TransportError


class Played:
    """An api that gives the answers of a list one after the other, and the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, **options: Any) -> Client:
        return Client("http://tidal", transport=httpx.MockTransport(self), **options)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits instead of sleeping."""
    found: list[float] = []
    for module in ("connection", "files", "jobs"):
        monkeypatch.setattr(f"tidal_client.synchronous.{module}.sleep_for", found.append)
    return found


def job(**changes: Any) -> httpx.Response:
    return httpx.Response(200, json=documents.job(**changes))


BROKEN = httpx.ReadError("connection reset")
REFUSED = httpx.ConnectError("connection refused")
UNAVAILABLE = httpx.Response(503, json={"detail": "restarting"})


@pytest.mark.parametrize("failure", [BROKEN, REFUSED, UNAVAILABLE, httpx.Response(502, text="<html>")])
def test_reads_and_submissions_are_repeated_and_the_waits_grow(failure: Answer, waits: list[float]) -> None:
    api = Played(failure, failure, job())
    assert api.client().job("job_1").id == "job_1"
    assert len(waits) == 2 and 0.125 <= waits[0] <= 0.25 and 0.25 <= waits[1] <= 0.5
    api = Played(failure, job())
    api.client().submit_job("lm-training")
    assert len({request.headers["Idempotency-Key"] for request in api.requests}) == 1
    assert [request.content for request in api.requests] == [b'{"type":"lm-training"}'] * 2


@pytest.mark.parametrize("failure", [BROKEN, UNAVAILABLE])
def test_a_request_that_may_have_had_an_effect_is_sent_once(failure: Answer) -> None:
    for call in (
        lambda client: client.signal_job("job_1", "pause"),
        lambda client: client.delete_dataset("d"),
        lambda client: client.generate("x/final", "a"),
        lambda client: list(client.generate_stream("x/final", "a")),
    ):
        api = Played(failure)
        with pytest.raises(UnavailableError):
            call(api.client())
        assert len(api.requests) == 1


def test_a_request_that_could_not_be_sent_is_repeated_whatever_it_does() -> None:
    api = Played(REFUSED, REFUSED, job())
    assert api.client().signal_job("job_1", "pause").id == "job_1"
    assert len(api.requests) == 3


def test_the_number_of_retries_is_a_limit_and_can_be_zero(waits: list[float]) -> None:
    for retries in (0, 3):
        api = Played(REFUSED)
        with pytest.raises(UnavailableError, match="tidal up"):
            api.client(retries=retries).job("job_1")
        assert len(api.requests) == retries + 1
    assert len(waits) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_other_errors_are_final(status: int) -> None:
    api = Played(httpx.Response(status, json={"detail": "no"}))
    with pytest.raises(Exception, match="no"):
        api.client().job("job_1")
    assert len(api.requests) == 1


def test_a_rate_limit_is_waited_for_up_to_half_a_minute(waits: list[float]) -> None:
    reply = {"text": "b", "tokensGenerated": 1, "elapsedMs": 1.0, "finishReason": "length"}
    slowly = httpx.Response(429, json={"detail": "slowly"}, headers={"Retry-After": "7"})
    api = Played(slowly, httpx.Response(200, json=reply))
    assert api.client().generate("x/final", "a").text == "b"
    assert waits == [7.0]
    later = httpx.Response(429, json={"detail": "slowly"}, headers={"Retry-After": "31"})
    with pytest.raises(RateLimitedError) as caught:
        Played(later).client().generate("x/final", "a")
    assert (caught.value.retry_after, waits) == (31.0, [7.0])


def test_errors_under_v1_become_the_same_exceptions() -> None:
    body = {
        "error": {"message": "no model x", "type": "invalid_request_error", "param": None, "code": "model_not_found"}
    }
    with pytest.raises(NotFoundError, match="no model x") as caught:
        Played(httpx.Response(404, json=body)).client().complete("x", "a")
    assert caught.value.code == "model_not_found"


def test_a_stream_of_completions_ends_with_done_and_its_errors_are_raised() -> None:
    part = '{"id":"c","created":1,"model":"x","system_fingerprint":"fp","choices":[{"text":"a","index":0}]}'
    whole = f"data: {part}\n\ndata: [DONE]\n\n".encode()
    cut = f"data: {part}\n\n".encode()
    failed = cut + b'data: {"error":{"message":"the engine was restarted","code":"unavailable"}}\n\n'

    def stream(body: bytes) -> Iterator[str]:
        api = Played(httpx.Response(200, headers=documents.EVENTS, content=body))
        return (part.choices[0].text for part in api.client().complete_stream("x", "a"))

    assert list(stream(whole)) == ["a"]
    with pytest.raises(UnavailableError, match="before the reply was complete"):
        list(stream(cut))
    with pytest.raises(UnavailableError, match="restarted"):
        list(stream(failed))


def test_waiting_ends_with_the_job_reports_changes_and_survives_an_unavailable_api(waits: list[float]) -> None:
    progress = {"step": 5, "totalSteps": 10, "etaSeconds": 1.0, "phase": "training"}
    running = job(status="running", progress=progress)
    api = Played(job(), job(), running, UNAVAILABLE, running, job(status="completed", progress=progress))
    seen: list[tuple[str, int | None]] = []
    ended = api.client(retries=0).wait("job_1", on_change=lambda job: seen.append((job.status, job.progress.step)))
    assert ended.status == "completed"
    assert seen == [("pending", None), ("running", 5), ("completed", 5)]
    assert waits == sorted(waits) and waits[-1] <= 2.0


def test_waiting_has_a_deadline_and_the_job_is_read_at_least_once() -> None:
    api = Played(job())
    with pytest.raises(TimeoutError, match="job_1 has not ended within 0 s"):
        api.client().wait("job_1", timeout=0)
    assert len(api.requests) == 1
    assert Played(job(status="failed")).client().wait("job_1", timeout=0).status == "failed"


def test_an_upload_reports_its_progress_and_is_not_repeated_after_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(b"x" * 600_000)
    dataset = {
        "name": "d",
        "status": "uploaded",
        "format": "txt",
        "textField": "text",
        "sha256": "0",
        "sizeBytes": 600_000,
        "createdAt": documents.TIME,
    }
    sent: list[int] = []
    api = Played(httpx.Response(201, json={"dataset": dataset}))
    assert api.client().upload_dataset(path, on_progress=sent.append).dataset.name == "d"
    assert sent == [262_144, 524_288, 600_000]
    assert api.requests[0].headers["Content-Length"] == "600000"
    for status, kind in ((409, ConflictError), (429, RateLimitedError), (422, InvalidInputError)):
        api = Played(httpx.Response(status, json={"detail": "no"}))
        with pytest.raises(kind):
            api.client().upload_dataset(path)
        assert len(api.requests) == 1


def test_a_download_that_the_server_sends_anew_begins_anew(tmp_path: Path) -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"old"
            raise BROKEN

    asked: list[tuple[str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.headers.get("Range"), request.headers.get("If-Range")))
        if len(asked) == 1:
            return httpx.Response(200, headers={"ETag": '"1"'}, stream=Broken())
        return httpx.Response(200, headers={"ETag": '"2"'}, content=b"new text")

    with Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        assert client.download_checkpoint("x", "final", tmp_path / "f").read_bytes() == b"new text"
    assert asked == [(None, None), ("bytes=3-", '"1"')]


def test_a_failed_download_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("before")
    for answer, kind in ((REFUSED, UnavailableError), (httpx.Response(404, json={"detail": "no"}), NotFoundError)):
        with pytest.raises(kind):
            Played(answer).client().download_log("job_1", tmp_path / "f")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_the_asynchronous_client_does_the_same() -> None:
    api = Played(httpx.Response(503, json={"detail": "restarting"}, headers={"Retry-After": "0"}), job())

    async def answer(request: httpx.Request) -> httpx.Response:
        return api(request)

    async def read() -> str:
        async with AsyncClient("http://tidal", transport=httpx.MockTransport(answer)) as client:
            return (await client.job("job_1")).id

    assert asyncio.run(read()) == "job_1"
    assert len(api.requests) == 2
