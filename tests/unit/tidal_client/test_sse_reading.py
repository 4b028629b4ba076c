"""Server-sent events are read as the standard requires, and a stream resumes without a gap or a repeated event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import httpx
import pytest

from common.errors import NotFoundError, UnavailableError
from tests.unit import api_documents as documents
from tidal_client import Client
from tidal_client.sse import StreamEvent
from tidal_client.synchronous.streams import follow, read_events

ODD_TEXT = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg · 🐈"
"""A text that `str.splitlines` splits into seven lines, but that is one line of an event stream."""


class Chunks(httpx.SyncByteStream):
    """A response body that arrives chunk by chunk."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


def read(chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
    """Return the events of a response whose body arrives in `chunks`."""
    return read_events(httpx.Response(200, headers=documents.EVENTS, stream=Chunks(chunks)))


def test_events_are_read_as_the_standard_defines() -> None:
    lines = [
        ": a comment",
        "",
        "event: metrics",
        "id: 7-0",
        'data: {"a":',
        "data: 1}",
        "",
        "data:no space, no JSON",
        "id: 8\0-0",
        "retry: 2000",
        "",
        "data",
        "data:  two spaces",
        "unknown: field",
        "event",
        "",
        "id: 9-0",
        "event: without data",
        "",
        f"data: {ODD_TEXT}",
        "",
        "event: lost",
        "data: the connection broke before the blank line",
    ]
    events = [
        StreamEvent("metrics", {"a": 1}, "7-0"),
        StreamEvent("message", "no space, no JSON", "7-0"),
        StreamEvent("message", "\n two spaces", "7-0"),
        StreamEvent("message", ODD_TEXT, "9-0"),
    ]
    for line_end in ("\n", "\r", "\r\n"):
        whole = line_end.join([*lines, ""]).encode()
        assert list(read([whole])) == events
        # One byte per chunk splits the body even within a line ending and within a character.
        assert list(read(bytes([byte]) for byte in whole)) == events
        for index in range(len(whole)):
            assert list(read([whole[:index], b"", whole[index:]])) == events


def test_an_event_is_returned_as_soon_as_its_blank_line_has_arrived() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"data: 1\r\n\r\n"
        raise AssertionError("the reader asks for bytes after the blank line")

    assert next(read(chunks())) == StreamEvent("message", 1)


def test_a_reply_that_is_not_an_event_stream_is_an_error_with_its_content_type() -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, html="<p>a proxy</p>"))
    with Client("http://tidal", transport=page) as client, pytest.raises(UnavailableError, match="text/html"):
        list(client.generate_stream("x/final", "Once"))


class BrokenStream(httpx.SyncByteStream):
    """A response body that sends its chunks and then fails."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        raise httpx.ReadError("broken")


def event(number: int) -> bytes:
    return f"event: metrics\nid: {number}-0\ndata: {number}\n\n".encode()


def test_a_broken_stream_resumes_after_the_last_event() -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        match len(asked):
            case 1:
                return httpx.Response(
                    200,
                    headers=documents.EVENTS,
                    stream=BrokenStream(event(1), event(2), b"event: metrics\nid: 3-0\nda"),
                )
            case 2:
                return httpx.Response(503, json={"detail": "restarting"})
            case 3:
                raise httpx.ConnectError("connection refused")
            case _:
                return httpx.Response(200, headers=documents.EVENTS, stream=BrokenStream(event(3), event(4)))

    http = httpx.Client(base_url="http://tidal", transport=httpx.MockTransport(answer))
    waits: list[float] = []
    events = follow(lambda headers: http.stream("GET", "/x", headers=headers), sleep=waits.append)
    assert [each.data for each in islice(events, 4)] == [1, 2, 3, 4]
    assert asked == [None, "2-0", "2-0", "2-0"]
    assert waits == sorted(waits)  # the delays never decrease
    http.close()


def test_a_refused_request_is_not_repeated() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, json={"detail": "no such experiment"}))
    with Client("http://tidal", transport=transport) as client, pytest.raises(NotFoundError, match="no such"):
        next(client.follow_experiment("x"))


def test_following_an_experiment_without_log_lines_resumes_after_the_last_event() -> None:
    requested: list[str] = []
    topic = b'event: topic\ndata: "experiments/x/brief"\n\n'

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(str(request.url.params))
        numbers = (1, 2) if len(requested) == 1 else (3,)
        missing = b'event: error\ndata: {"message": "no experiment x", "status": 404}\n\n'
        stream = BrokenStream(topic, *map(event, numbers), *([missing] * (len(requested) - 1)))
        return httpx.Response(200, headers=documents.EVENTS, stream=stream)

    with Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        events = client.follow_experiment("x", log_lines=False)
        assert [each.data for each in islice(events, 3)] == [1, 2, 3]
        with pytest.raises(NotFoundError, match="no experiment x"):
            next(events)
    assert requested == ["topic=experiments%2Fx%2Fbrief", "topic=experiments%2Fx%2Fbrief%402-0"]


def test_following_falls_back_to_the_whole_stream_if_the_api_has_no_brief_topics() -> None:
    requested: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(request.url.path)
        missing = b'event: error\ndata: {"message": "no experiment x/brief", "status": 404}\n\n'
        known = request.url.path == "/api/experiments/x/stream"
        return httpx.Response(200, headers=documents.EVENTS, stream=BrokenStream(event(1) if known else missing))

    with Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        assert next(client.follow_experiment("x", log_lines=False)).data == 1
    assert requested == ["/api/stream", "/api/experiments/x/stream"]


def test_following_ends_with_an_error_after_the_patience() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    http = httpx.Client(base_url="http://tidal", transport=httpx.MockTransport(away))
    events = follow(lambda headers: http.stream("GET", "/x", headers=headers), patience=0.0, sleep=lambda _: None)
    with pytest.raises(UnavailableError, match="could not be resumed"):
        next(events)
    http.close()


def test_a_generation_ends_with_done_and_its_errors_are_raised() -> None:
    done = {"text": "a b", "tokensGenerated": 2, "elapsedMs": 5.0, "finishReason": "length"}
    body = b'event: token\ndata: {"text":" a"}\n\nevent: done\ndata: ' + json.dumps(done).encode() + b"\n\n"
    sent: list[dict[str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, headers=documents.EVENTS, content=body)

    with Client("http://tidal", transport=httpx.MockTransport(answer)) as client:
        events = list(client.generate_stream("x/final", "Once", max_tokens=2, gating_mode="fixed", seed=None))
    assert [e.name for e in events] == ["token", "done"]
    assert sent == [{"checkpoint": "x/final", "prompt": "Once", "stream": True, "maxTokens": 2, "gatingMode": "fixed"}]
    failing = b'event: error\ndata: {"code":"unavailable","message":"the engine was restarted","status":503}\n\n'
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=documents.EVENTS, content=failing))
    with Client("http://tidal", transport=transport) as client, pytest.raises(UnavailableError, match="restarted"):
        list(client.generate_stream("x/final", "Once"))
