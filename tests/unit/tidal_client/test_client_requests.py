"""Requests have the format that the api expects, and problem documents become exceptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from common.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    TidalError,
    UnauthorizedError,
    UnavailableError,
)
from tests.unit import api_documents as documents
from tidal_client import Client

JOB = documents.job(queuePosition=1, aKeyOfALaterVersion=True)


def client(answer: Callable[[httpx.Request], httpx.Response], token: str | None = None) -> Client:
    return Client("http://tidal/", token, transport=httpx.MockTransport(answer))


def test_a_submission_is_camel_case_and_repeatable() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, json=JOB)

    with client(answer, "secret") as api:
        job = api.submit_job(
            "lm-training", config={"training": {"max_steps": 3}}, config_path="demo/lm.yaml", tags=["a"], name=None
        )
        api.submit_job("lm-training", idempotency_key="mine")
    assert json.loads(seen[0].content) == {
        "type": "lm-training",
        "config": {"training": {"max_steps": 3}},  # within config, the keys are those of the YAML files
        "configPath": "demo/lm.yaml",
        "tags": ["a"],
    }
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert len(seen[0].headers["Idempotency-Key"]) >= 16
    assert seen[1].headers["Idempotency-Key"] == "mine"
    assert (job.id, job.queue_position, job.ended) == ("job_1", 1, False)


def test_pages_of_jobs_are_joined() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        cursor = request.url.params.get("cursor")
        number = 2 if cursor == "next" else 1
        page: dict[str, Any] = {"jobs": [{**JOB, "id": f"job_{number}"}]}
        return httpx.Response(200, json={**page, "nextCursor": None if cursor else "next"})

    with client(answer) as api:
        assert [job.id for job in api.jobs(limit=10)] == ["job_1", "job_2"]
        assert [job.id for job in api.jobs(limit=1)] == ["job_1"]


def test_the_history_of_a_job_is_complete_however_long_it_is() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params.get("cursor") or 0)
        events = [documents.job_event(id=number) for number in range(first + 1, min(first + 3, 7) + 1)]
        return httpx.Response(200, json={"events": events, "nextCursor": str(first + 3) if first + 3 < 7 else None})

    with client(answer) as api:
        assert [event.id for event in api.job_events("job_1")] == [1, 2, 3, 4, 5, 6, 7]


def test_the_last_lines_of_a_log_are_those_of_its_last_page() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        second = request.url.params.get("cursor") == "1-9-2"
        lines = [{"attempt": 1, "line": n, "text": f"line {n}"} for n in ((3,) if second else (1, 2))]
        cursor = "1-14-3" if second else "1-9-2"
        return httpx.Response(200, json={"lines": lines, "nextCursor": cursor, "complete": second})

    with client(answer) as api:
        assert [line.text for line in api.last_log_lines("job_1", 2)] == ["line 2", "line 3"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInputError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, InvalidInputError),
        (422, InvalidInputError),
        (500, TidalError),
        (503, UnavailableError),
    ],
)
def test_a_problem_document_becomes_the_exception_it_came_from(status: int, kind: type[TidalError]) -> None:
    document = {
        "detail": "what and why",
        "code": "some_code",
        "errors": [{"location": "body.x", "message": "bad"}],
    }
    with client(lambda _: httpx.Response(status, json=document)) as api, pytest.raises(kind) as caught:
        api.job("job_1")
    assert (caught.value.message, caught.value.code) == ("what and why", "some_code")
    assert caught.value.errors == document["errors"]


def test_a_rate_limit_reports_when_to_retry() -> None:
    reply = httpx.Response(429, json={"detail": "slowly"}, headers={"Retry-After": "7"})
    with client(lambda _: reply) as api, pytest.raises(RateLimitedError) as caught:
        api.generate("x/final", "Once")
    assert caught.value.retry_after == 7


def test_an_error_without_a_problem_document_is_raised() -> None:
    with client(lambda _: httpx.Response(502, text="<html>")) as api, pytest.raises(TidalError, match="502"):
        api.job("job_1")


def test_the_error_without_an_api_explains_how_to_start_one() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with client(away) as api, pytest.raises(UnavailableError, match="tidal up"):
        api.job("job_1")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"stop": ["\udcff"]}, "not valid UTF-8"), ({"temperature": float("nan")}, "cannot be sent")],
)
def test_values_that_json_cannot_encode_are_refused_before_sending(fields: dict[str, Any], message: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing is to be sent")

    with client(answer) as api:
        with pytest.raises(InvalidInputError, match=message):
            next(api.generate_stream("exp/final", "Once", **fields))
        with pytest.raises(InvalidInputError, match=message):
            api.generate("exp/final", "Once", **fields)
