"""The last word on a request that no engine will finish: one `done` or `error` event.

Tokens go through `emitter`. Leaves out: what the events mean (`common.jobs.generation_request`).
"""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from common.errors import TidalError
from common.metrics import keys


class ReplyStream:
    """Writes the end of one request's stream."""

    def __init__(self, redis: Redis, request_id: str) -> None:
        self._redis = redis
        self._stream = keys.generate_stream(request_id)

    def done(self, data: dict[str, Any]) -> None:
        """End with the whole reply."""
        self._end(keys.EVENT_DONE, data)

    def error(self, error: TidalError) -> None:
        """End with an error."""
        self._end(keys.EVENT_ERROR, {"code": error.code, "message": error.message, "status": error.status})

    def _end(self, event: str, data: dict[str, Any]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._stream, {"event": event, "data": json.dumps(data, ensure_ascii=False)})
            pipeline.expire(self._stream, keys.GENERATE_TTL_SECONDS)
            pipeline.execute()
