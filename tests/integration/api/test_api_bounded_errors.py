"""Error replies and metrics stay small even if requests contain large or invented input."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from tests.integration.api.conftest import TINY_CONFIG, Api

MOST_REPLY_BYTES = 65_536
KEYS: dict[str, Any] = {f"key{number:06}": 1 for number in range(60_000)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/jobs", {"type": "lm-training", **KEYS}),
        ("/api/jobs", {"type": "lm-training", "config": KEYS}),
        ("/api/jobs", {"type": "lm-training", "config": {**TINY_CONFIG, "model": KEYS}}),
        ("/api/jobs", {"type": "lm-training", "config": {"k" * 900_000: 1}}),
        ("/api/jobs", {"type": "lm-training", "config": {"model": {"d_model": "x" * 900_000}}}),
        ("/api/jobs", {"type": "rl-training", "config": KEYS}),
        ("/api/jobs", {"type": "x" * 900_000}),
        ("/api/generate", {"checkpoint": "x" * 90_000, "prompt": "a"}),
        ("/api/generate", {"checkpoint": "x", "prompt": "a", **KEYS}),
        ("/api/generate", {"checkpoint": "\x01" * 90_000, "prompt": "a"}),
        ("/api/analyze-trajectories", {"prompts": [1] * 100_000}),
        ("/v1/completions", {"model": "a", "prompt": "a", **KEYS}),
        ("/v1/completions", {"model": "é" * 90_000, "prompt": "a"}),
        ("/v1/completions", {"model": "a", "prompt": "a", "logit_bias": KEYS}),
        ("/v1/completions", {"model": "a", "prompt": [0, None] * 60_000}),
        ("/api/reports", KEYS),
    ],
)
def test_the_reply_to_an_invalid_body_is_small_and_fast(api: Api, path: str, body: dict[str, Any]) -> None:
    with httpx.Client(base_url=api.url, timeout=60) as health:
        reply = api.admin.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert 400 <= reply.status_code < 500, reply.text[:500]
        assert len(reply.content) <= MOST_REPLY_BYTES
        assert reply.json()
        assert health.get("/healthz").status_code == 200


def test_omitted_findings_are_counted(api: Api) -> None:
    found = api.admin.post("/api/jobs", json={"type": "lm-training", **KEYS}).json()
    assert len(found["errors"]) == 51
    assert found["errors"][0] == {"location": "body.key000000", "message": "unknown key 'key000000'"}
    assert found["errors"][-1]["message"] == "59,950 more findings are left out"
    found = api.admin.post("/api/jobs", json={"type": "lm-training", "config": KEYS}).json()
    assert len(found["errors"]) == 51 and "59,950" in found["errors"][-1]["message"]
    assert "key000000" in found["detail"]


def test_a_long_path_query_or_header_is_not_repeated(api: Api) -> None:
    long = "x" * 50_000
    for reply in (
        api.http.get(f"/{long}"),
        api.http.get(f"/api/jobs/{long}"),
        api.http.get("/api/stream", params={"topic": long}),
        api.http.get("/api/jobs", params={"limit": long}),
        api.http.get("/api/jobs", params={"cursor": long}),
        api.http.get(f"/api/experiments/{long}"),
        api.http.get(f"/v1/models/{long}"),
        api.admin.post("/api/jobs", content=b"x", headers={"Content-Type": long}),
    ):
        assert reply.status_code >= 400
        assert len(reply.content) < 5_000, reply.text[:200]


def test_unknown_methods_share_one_label(api: Api) -> None:
    def invent(numbers: range) -> int:
        for number in numbers:
            assert api.http.request(f"INVENTED{number}", "/api/jobs").status_code == 405
        return len(api.http.get("/metrics").text)

    invent(range(1))  # the first scrape is itself counted, which changes the metrics of the second one
    small = invent(range(1, 2))
    assert invent(range(2, 200)) - small < 1_000
    text = api.http.get("/metrics").text
    assert "INVENTED" not in text and 'method="other"' in text


def test_listed_keys_still_get_a_suggestion(api: Api) -> None:
    started = time.monotonic()
    reply = api.admin.post("/api/jobs", json={"type": "lm-training", "config": {"model": {"d_modle": 16}}})
    assert "did you mean 'd_model'" in reply.json()["detail"]
    assert time.monotonic() - started < 10
