"""Answers GET requests about completed experiments from the disk. All other requests go to the api.

Which requests these are, is decided by the path: the experiment itself and those of its parts that no longer change
(FIXED). An experiment counts as completed after the api has replied that it is `completed` or `imported`, or if that
reply is in the cache. The key of a stored reply contains the address of the api, the path with its query, and a hash of
the token, so that a token cannot read replies to another one.
"""

from __future__ import annotations

import hashlib
import json
import re

import httpx

from services.mcp.cache import CachedReply, DiskCache
from tidal_client.vocabulary import IMPORTED, JobStatus

FIXED = ("", "/status", "/config", "/metrics", "/rl-metrics", "/evaluation", "/ablation", "/samples", "/checkpoints")
"""Parts of an experiment that do not change after its completion, as ends of the path."""
COMPLETED = (JobStatus.COMPLETED.value, IMPORTED)
_EXPERIMENT = re.compile(r"(/api/experiments/[^/]+)(/[a-z-]+)?$")


class CachingTransport(httpx.AsyncBaseTransport):
    """Sends requests through `inner`, for one token. Closing it does not close `inner`, which several share."""

    def __init__(self, inner: httpx.AsyncBaseTransport, cache: DiskCache | None, token: str | None) -> None:
        self._inner = inner
        self._cache = cache
        self._owner = hashlib.sha256((token or "").encode()).hexdigest()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the stored reply, or that of the api."""
        experiment, part = _experiment(request)
        if self._cache is None or experiment is None or part not in FIXED:
            return await self._inner.handle_async_request(request)
        key = self._key(request.url)
        if stored := self._cache.get(key):
            return httpx.Response(200, headers={"Content-Type": stored.content_type}, content=stored.body)
        # Whether the experiment is completed must be known before the request: a reply that was built before the end
        # of the job, but arrives after it, must not be stored.
        completed = self._is_completed(request.url.copy_with(path=experiment, query=None))
        response = await self._inner.handle_async_request(request)
        if response.status_code != 200:
            return response
        await response.aread()
        content_type = response.headers.get("Content-Type", "")
        if completed or (part == "" and _status(response.content) in COMPLETED):
            self._cache.put(key, CachedReply(content_type, response.content))
        return httpx.Response(200, headers={"Content-Type": content_type}, content=response.content)

    async def aclose(self) -> None:
        """Do nothing, because other transports use `inner` too."""

    def _is_completed(self, url: httpx.URL) -> bool:
        stored = self._cache.get(self._key(url)) if self._cache is not None else None
        return stored is not None and _status(stored.body) in COMPLETED

    def _key(self, url: httpx.URL) -> str:
        return f"{url.scheme}://{url.netloc.decode()} {url.raw_path.decode()} {self._owner}"


def _experiment(request: httpx.Request) -> tuple[str | None, str]:
    """Return the path of the experiment that a GET request is about, and the part of it; (None, "") for others."""
    found = _EXPERIMENT.search(request.url.path) if request.method == "GET" else None
    if found is None:
        return None, ""
    experiment = request.url.path[: found.end(1)]
    # `/api/experiments/tags` is a list, and `/api/experiments/<id>/stream` is no reply that ends.
    return (None, "") if experiment.endswith("/tags") else (experiment, found[2] or "")


def _status(body: bytes) -> str | None:
    try:
        status = json.loads(body).get("status")
    except (ValueError, AttributeError):
        return None
    return str(status) if status is not None else None
