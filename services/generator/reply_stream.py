"""Sends the `error` event that ends the reply of a request which no engine will finish.

All other events are sent by `services.generator.emitter`. The events are defined in
`tidal_client.wire.generation_event`.
"""

from __future__ import annotations

from redis import Redis

from common.errors import TidalError
from common.redis import keys
from common.redis.generation_events import MAX_ENTRIES, encode_generation_event, entry, error_data
from tidal_client.wire.generation_event import EVENT_ERROR


def end_with_error(redis: Redis, request_id: str, error: TidalError) -> None:
    """Write the `error` event that ends the reply of a request. Raises RedisError if Redis does not answer."""
    stream = keys.generate_stream(request_id)
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.xadd(
            stream, entry("", [encode_generation_event(request_id, EVENT_ERROR, error_data(error))]), maxlen=MAX_ENTRIES
        )
        pipeline.expire(stream, keys.GENERATE_TTL_SECONDS)
        pipeline.execute()
