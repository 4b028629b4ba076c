"""The Redis side of one generation: tokens as they come, then one `done` or `error`.

Tokens are gathered for a few milliseconds and sent in one pipelined call, which also asks whether the client is still
there. Leaves out: what the events mean (`common.jobs.generation_request`).
"""

from __future__ import annotations

import json
import time
from typing import Any

from redis import Redis

from common.errors import TidalError
from common.metrics import keys

FLUSH_SECONDS = 0.02
"""The first token is sent at once, later ones wait at most so long for company."""


class ReplyStream:
    """Writes the events of one request; `cancelled` is what the last call to Redis said.

    Without `send_tokens` only the first token is sent: it tells the api that the request has left the queue.
    """

    def __init__(self, redis: Redis, request_id: str, *, send_tokens: bool) -> None:
        self._redis = redis
        self._stream = keys.generate_stream(request_id)
        self._flag = keys.generate_cancelled(request_id)
        self._send_tokens = send_tokens
        self._waiting: list[dict[str, Any]] = []
        self._flushed_at = 0.0
        self.cancelled = False

    def token(self, data: dict[str, Any]) -> None:
        """Send a token, now or with the next ones."""
        if self._send_tokens or self._flushed_at == 0.0:
            self._waiting.append(data)
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self._flush()

    def done(self, data: dict[str, Any]) -> None:
        """End with the whole reply."""
        self._flush((keys.EVENT_DONE, data))

    def error(self, error: TidalError) -> None:
        """End with an error. Tokens that were not sent yet are dropped."""
        self._waiting.clear()
        self._flush((keys.EVENT_ERROR, {"code": error.code, "message": error.message, "status": error.status}))

    def _flush(self, last: tuple[str, dict[str, Any]] | None = None) -> None:
        events = [(keys.EVENT_TOKEN, data) for data in self._waiting]
        if last is not None:
            events.append(last)
        with self._redis.pipeline(transaction=False) as pipeline:
            for event, data in events:
                pipeline.xadd(self._stream, {"event": event, "data": json.dumps(data, ensure_ascii=False)})
            pipeline.expire(self._stream, keys.GENERATE_TTL_SECONDS)
            pipeline.exists(self._flag)
            self.cancelled = bool(pipeline.execute()[-1])
        self._waiting.clear()
        self._flushed_at = time.monotonic()
