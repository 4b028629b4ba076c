"""Decides whether a failed request is sent again, and after how many seconds.

A request is sent again if the first attempt cannot have changed anything, or if the server recognises the repetition:

- after a failed connection attempt: any request, because the server has not received it;
- after a broken connection, and after 502, 503 and 504: a request that only reads, or has an idempotency key;
- after 429: any request, after the time that the server names.

A request whose body is read from a file while it is sent is repeated only if no connection could be opened.
"""

from __future__ import annotations

import random

import httpx

DEFAULT_RETRIES = 3
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 4.0
"""The wait before retry n is at most FIRST_RETRY_SECONDS · 2ⁿ, up to LONGEST_RETRY_SECONDS; a random part of it, at
most one half, is left out, so that many clients do not return at once."""
LONGEST_RETRY_AFTER = 30.0
"""A reply that asks for a longer wait, in seconds, is an error at once."""
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_UNAVAILABLE = (502, 503, 504)


def seconds_after_error(error: httpx.TransportError, attempt: int, *, repeatable: bool) -> float | None:
    """Return the wait before the next attempt, or None if there must be none. `attempt` counts from 0."""
    return _backoff(attempt) if repeatable or isinstance(error, _NOT_CONNECTED) else None


def seconds_after_reply(response: httpx.Response, attempt: int, *, repeatable: bool) -> float | None:
    """Return the wait before the next attempt, or None if the reply is final. `attempt` counts from 0."""
    status = response.status_code
    if status != 429 and not (repeatable and status in _UNAVAILABLE):
        return None
    text = response.headers.get("Retry-After", "")
    wait = max(float(text) if text.isdigit() else 0.0, _backoff(attempt))
    return wait if wait <= LONGEST_RETRY_AFTER else None


def _backoff(attempt: int) -> float:
    return min(FIRST_RETRY_SECONDS * 2.0**attempt, LONGEST_RETRY_SECONDS) * random.uniform(0.5, 1.0)
