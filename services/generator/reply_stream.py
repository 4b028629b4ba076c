"""The last word on a request that no engine will finish: one `done` or `error` event.

Tokens go through `emitter`. Leaves out: what the events mean (`common.redis.generation_request`).
"""

from __future__ import annotations

from typing import Any

from redis import Redis

from common.errors import TidalError
from common.redis import keys
from common.redis.generation_events import MAX_ENTRIES, entry, error_data, said


class ReplyStream:
    """Writes the end of one request."""

    def __init__(self, redis: Redis, request_id: str) -> None:
        self._redis = redis
        self._request_id = request_id

    def done(self, data: dict[str, Any]) -> None:
        """End with the whole reply."""
        self._end(keys.EVENT_DONE, data)

    def error(self, error: TidalError) -> None:
        """End with an error."""
        self._end(keys.EVENT_ERROR, error_data(error))

    def _end(self, event: str, data: dict[str, Any]) -> None:
        stream = keys.generate_stream(self._request_id)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(stream, entry("", [said(self._request_id, event, data)]), maxlen=MAX_ENTRIES)
            pipeline.expire(stream, keys.GENERATE_TTL_SECONDS)
            pipeline.execute()
