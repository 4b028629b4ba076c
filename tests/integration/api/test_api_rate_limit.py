"""The rate limit of generation: buckets per address and per token, their headers, and the limiter without Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.integration.api.conftest import Api, RunApi
from tests.integration.api.engine_stand_in import Engine, make_checkpoint
from tests.integration.api.engine_stand_in import checkpoint as checkpoint
from tests.integration.api.engine_stand_in import engine as engine


def test_callers_without_a_token_may_send_five_requests_at_once(api: Api, engine: Engine, checkpoint: str) -> None:
    body = {"checkpoint": checkpoint}
    replies = [api.http.post("/api/generate", json=body) for _ in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429]
    assert [reply.headers["x-ratelimit-remaining"] for reply in replies] == ["4", "3", "2", "1", "0", "0"]
    assert {reply.headers["x-ratelimit-limit"] for reply in replies} == {"5"}
    refused = replies[5]
    assert (refused.json()["code"], refused.headers["content-type"]) == ("rate_limited", "application/problem+json")
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert refused.headers["ratelimit"].startswith('"generate";r=0;t=')
    assert api.admin.post("/api/generate", json=body).status_code == 200
    assert "x-ratelimit-limit" not in api.admin.post("/api/generate", json=body).headers
    assert api.http.post("/api/generate", json=body, headers={"Authorization": "Bearer no"}).status_code == 429


def test_a_token_may_have_a_limit_of_its_own(serve: RunApi, engine: Engine) -> None:
    with serve(token_rate_limit_capacity=2, token_rate_limit_refill_seconds=60) as api:
        body = {"checkpoint": make_checkpoint(api)}
        replies = [api.admin.post("/api/generate", json=body) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining"] for reply in replies] == ["1", "0", "0"]
        assert replies[2].headers["x-ratelimit-limit"] == "2"
        assert "token" not in replies[2].json()["detail"]
        assert api.http.post("/api/generate", json=body).headers["x-ratelimit-remaining"] == "4"


def test_the_bucket_fills_again_with_time(serve: RunApi, engine: Engine) -> None:
    with serve(rate_limit_capacity=1, rate_limit_refill_seconds=0.3) as api:
        body = {"checkpoint": make_checkpoint(api)}
        assert api.http.post("/api/generate", json=body).status_code == 200
        seen = {api.http.post("/api/generate", json=body).status_code for _ in range(200)}
        assert seen == {200, 429}


def test_many_concurrent_calls_get_no_more_than_the_bucket_contains(serve: RunApi, engine: Engine) -> None:
    with serve(rate_limit_refill_seconds=600) as api:
        checkpoint = make_checkpoint(api)

        def call(_: int) -> int:
            return httpx.post(f"{api.url}/api/generate", json={"checkpoint": checkpoint}, timeout=20).status_code

        with ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(call, range(48)))
        assert (statuses.count(200), statuses.count(429)) == (5, 43)


def test_forwarded_addresses_count_only_from_a_trusted_proxy(serve: RunApi, engine: Engine) -> None:
    def statuses(api: Api) -> list[int]:
        body = {"checkpoint": make_checkpoint(api)}
        headers = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(3)]
        return [api.http.post("/api/generate", json=body, headers=header).status_code for header in headers]

    with serve(rate_limit_capacity=1) as api:
        assert statuses(api) == [200, 429, 429]
    with serve(rate_limit_capacity=1, trusted_proxies="127.0.0.1") as api:
        assert statuses(api) == [200, 200, 200]


def test_a_limiter_without_redis_allows_and_counts_requests(serve: RunApi) -> None:
    with serve(redis_url="redis://127.0.0.1:1/0") as api:
        reply = api.http.post("/api/generate", json={"checkpoint": make_checkpoint(api)})
        assert (reply.status_code, reply.json()["code"]) == (503, "redis_unavailable")
        assert "tidal_rate_limit_unavailable_total 1.0" in api.http.get("/metrics").text
