"""Reading Redis streams as text: the two commands the api uses, with the types they really have."""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import Redis

Fields = dict[str, str]


async def read_after(redis: Redis, key: str, last_id: str, *, count: int, block: int) -> list[tuple[str, Fields]]:
    """What follows `last_id`, waiting up to `block` ms for the first entry; empty when none came. RedisError."""
    reply = cast(list[Any], await redis.xread({key: last_id}, count=count, block=block))
    return cast(list[tuple[str, Fields]], reply[0][1]) if reply else []


async def page_after(redis: Redis, key: str, last_id: str, *, count: int) -> list[tuple[str, Fields]]:
    """What follows `last_id` at once, at most `count` entries. RedisError."""
    return cast(list[tuple[str, Fields]], await redis.xrange(key, min=f"({last_id}", max="+", count=count))
