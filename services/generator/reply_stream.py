"""The last word on a request that no engine will finish: an `error` event.

Tokens go through `emitter`. Leaves out: what the events mean (`tidal_client.wire.generation_event`).
"""

from __future__ import annotations

from redis import Redis

from common.errors import TidalError
from common.redis import keys
from common.redis.generation_events import MAX_ENTRIES, entry, error_data, said
from tidal_client.wire.generation_event import EVENT_ERROR, ErrorEvent


class ReplyStream:
    """Writes the end of one request."""

    def __init__(self, redis: Redis, request_id: str) -> None:
        self._redis = redis
        self._request_id = request_id

    def error(self, error: TidalError) -> None:
        """End with an error."""
        self._end(EVENT_ERROR, error_data(error))

    def _end(self, event: str, data: ErrorEvent) -> None:
        stream = keys.generate_stream(self._request_id)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(stream, entry("", [said(self._request_id, event, data)]), maxlen=MAX_ENTRIES)
            pipeline.expire(stream, keys.GENERATE_TTL_SECONDS)
            pipeline.execute()
