"""Timeouts, headers, paths, queries and bodies of requests, for both the synchronous and the asynchronous client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import SSEError
from pydantic.alias_generators import to_camel

from .errors import TidalError, UnavailableError

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
GENERATE_SECONDS = 130.0
"""Timeout of a generation in seconds. The server's limit is 120 s, and its error must arrive before this timeout."""
SILENCE_SECONDS = 45.0
"""Read timeout of a stream in seconds. The server sends a comment about every 15 s. If nothing arrives for this long,
the connection is broken."""
UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=5.0, read=1800.0)
"""The read timeout is long because the server checks a parquet file only after the whole file has arrived."""
BLOCK_BYTES = 256 * 1024
"""Size of the blocks in which files are sent."""
LARGEST_PAGE = 100


def request_headers(token: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    return {"User-Agent": "tidal-client", **({"Authorization": f"Bearer {token}"} if token else {})}


def request_body(**fields: Any) -> dict[str, Any]:
    """Return a request body: the `fields` that are not None, with camelCase names."""
    return {to_camel(name): value for name, value in fields.items() if value is not None}


def snake_case_body(**fields: Any) -> dict[str, Any]:
    """Return the body of a request under `/v1`: the `fields` that are not None, with their names unchanged."""
    return {name: value for name, value in fields.items() if value is not None}


def without_none(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the query parameters that are not None."""
    return {name: value for name, value in query.items() if value is not None}


def segment(text: str) -> str:
    """Return `text` as one segment of a path."""
    return quote(text, safe="")


def file_path(text: str) -> str:
    """Return the name of a file, which may contain slashes, as the end of a path."""
    return quote(text, safe="/")


def topics_query(topics: Iterable[str], positions: Mapping[str, str | None]) -> str:
    """Return the query of `/api/stream`. A stream continues after its position in `positions`, if it has one."""
    texts = [f"{topic}@{position}" if (position := positions.get(topic)) else topic for topic in topics]
    return str(httpx.QueryParams([("topic", text) for text in texts]))


def page_size(limit: int | None, found: int) -> int:
    """Return how many entries to request next, if at most `limit` are wanted and `found` are known."""
    return LARGEST_PAGE if limit is None else min(limit - found, LARGEST_PAGE)


def unavailable_error(url: str, error: httpx.TransportError) -> TidalError:
    """Return the exception for a request to `url` that failed with a transport error."""
    if isinstance(error, SSEError):
        return UnavailableError(f"the reply of {url} is not an event stream: {error}")
    if isinstance(error, httpx.ReadTimeout):
        return UnavailableError(f"{url} did not reply in time")
    return UnavailableError(f"no api replies at {url}; start one with `tidal up`")
