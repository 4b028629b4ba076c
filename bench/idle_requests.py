"""The four kinds of generation request of `bench.idle`. Each function returns the number of tokens and the finish
reason.

`/v1/completions` can forbid the end-of-text token (`logit_bias`), so that a completion has all requested tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

CHECKPOINT = "20260101-000000-serving/model.safetensors"
TOKENS = 40
FORBIDDEN = {"50256": -100}


def _completion(http: httpx.Client) -> tuple[int, str]:
    reply = http.post("/v1/completions", json=_completion_body())
    if reply.status_code != 200:
        return 0, reply.text
    return reply.json()["usage"]["completion_tokens"], reply.json()["choices"][0]["finish_reason"]


def _streamed_completion(http: httpx.Client) -> tuple[int, str]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    tokens, reason = 0, "no end"
    with http.stream("POST", "/v1/completions", json=_completion_body() | options) as reply:
        for data in data_of(reply):
            if data == "[DONE]":
                break
            part = json.loads(data)
            if "error" in part:
                return tokens, part["error"]["message"]
            tokens = (part.get("usage") or {}).get("completion_tokens", tokens)
            for choice in part["choices"]:
                reason = choice["finish_reason"] or reason
    return tokens, reason


def _generation(http: httpx.Client) -> tuple[int, str]:
    reply = http.post("/api/generate", json=_generation_body())
    if reply.status_code != 200:
        return 0, reply.text
    return _tokens_of(reply.json())


def _streamed_generation(http: httpx.Client) -> tuple[int, str]:
    seen, last = 0, {"finishReason": "no end"}
    with http.stream("POST", "/api/generate", json=_generation_body() | {"stream": True}) as reply:
        for data in data_of(reply):
            last = json.loads(data)
            seen += "index" in last
    if "finishReason" not in last:
        return seen, str(last)
    tokens, reason = _tokens_of(last)
    return (tokens, reason) if seen == len(last["trajectory"]) else (seen, "lost tokens")


WAYS: dict[str, Callable[[httpx.Client], tuple[int, str]]] = {
    "/v1/completions": _completion,
    "/v1/completions, streamed": _streamed_completion,
    "/api/generate": _generation,
    "/api/generate, streamed": _streamed_generation,
}


def _tokens_of(reply: dict[str, Any]) -> tuple[int, str]:
    """Return the number of tokens and the finish reason of a reply of `/api/generate`.

    A request of `/api/generate` cannot forbid the end-of-text token. If the model samples this token early, the
    generation is nevertheless correct, so the result is (TOKENS, "length") as for a generation of TOKENS tokens.
    """
    if reply["finishReason"] == "stop" and reply["tokensGenerated"] == len(reply["trajectory"]):
        return TOKENS, "length"
    return reply["tokensGenerated"], reply["finishReason"]


def _completion_body() -> dict[str, Any]:
    return {"model": CHECKPOINT, "prompt": "Once upon a time", "max_tokens": TOKENS, "logit_bias": FORBIDDEN}


def _generation_body() -> dict[str, Any]:
    return {"checkpoint": CHECKPOINT, "prompt": "Once upon a time", "maxTokens": TOKENS}


def data_of(reply: httpx.Response) -> Iterator[str]:
    """Yield the data of each server-sent event; each event has one line of data."""
    for line in reply.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")
