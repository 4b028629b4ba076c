"""Rate limits with token buckets in Redis, one bucket per address or access token of a caller.

A caller may send `capacity` requests at once, and then one more request every `refill_seconds`. All api processes share
the buckets: a Lua script in Redis decides and updates the bucket, with the clock of Redis. If Redis does not answer
within 50 ms, the request is allowed and counted in `tidal_rate_limit_unavailable`, because a broken limiter must not
stop generation.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.errors import RateLimitedError
from services.api.awake import within
from services.api.http_metrics import HttpMetrics

# KEYS[1]: the bucket. ARGV: the capacity, and the microseconds per token. Returns whether the request is allowed, the
# number of remaining tokens, and the microseconds until the next token. The level of the bucket is stored in
# microseconds, namely as the time in which an empty bucket fills to this level. Rounding then loses no fraction of a
# token.
_SCRIPT = """
local capacity, per_token = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local full = capacity * per_token
local bucket = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = tonumber(bucket[1]), tonumber(bucket[2])
if level == nil or at == nil then level = full else level = math.min(full, level + math.max(0, now - at)) end
local allowed = 0
if level >= per_token then allowed = 1; level = level - per_token end
redis.call('HSET', KEYS[1], 'level', string.format('%.0f', level), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((full - level) / 1000) + 1000)
local wait = 0
if level < per_token then wait = per_token - level end
return {allowed, math.floor(level / per_token), math.ceil(wait)}
"""

ANSWER_WITHIN_SECONDS = 0.05


@dataclass(frozen=True)
class RateLimitDecision:
    """The decision on one request, and the state of the caller's bucket after the decision."""

    allowed: bool
    limit: int
    """Number of requests that a full bucket allows at once."""
    remaining: int
    wait_seconds: float
    """Seconds until the next request is allowed; 0 if one is allowed now."""
    window_seconds: float
    """Seconds after which an empty bucket is full again."""

    def headers(self) -> dict[str, str]:
        """Return the rate-limit headers of a reply, for success and for 429."""
        wait = math.ceil(self.wait_seconds)
        found = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "RateLimit-Policy": f'"generate";q={self.limit};w={math.ceil(self.window_seconds)}',
            "RateLimit": f'"generate";r={self.remaining};t={wait}',
        }
        if not self.allowed:
            found["Retry-After"] = str(max(1, wait))
        return found


class TooManyRequests(RateLimitedError):
    """Raised for 429, with the rate-limit headers. `hint` is added to the message and names another remedy than
    waiting."""

    def __init__(self, decision: RateLimitDecision, hint: str) -> None:
        super().__init__(
            f"too many requests: at most {decision.limit} at once, and then one every "
            f"{decision.window_seconds / decision.limit:g} s; wait{hint}",
            retry_after=decision.wait_seconds,
        )
        self.headers = decision.headers()


class RateLimiter:
    """The rate limit of one kind of caller. `name` becomes a part of the Redis keys."""

    def __init__(self, redis: Redis, metrics: HttpMetrics, *, name: str, capacity: int, refill_seconds: float) -> None:
        self._redis = redis
        self._metrics = metrics
        self._name = name
        self._capacity = capacity
        self._refill_seconds = refill_seconds
        self._waiting: list[tuple[str, asyncio.Future[RateLimitDecision | None]]] = []
        self._calling: asyncio.Task[None] | None = None

    async def take(self, client: str) -> RateLimitDecision | None:
        """Take one token from the bucket of `client`.

        Returns None if Redis does not answer in time; the request is then allowed. Requests that arrive during a call
        to Redis share the next call; a burst therefore needs only a few round trips.
        """
        future: asyncio.Future[RateLimitDecision | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((client, future))
        if self._calling is None or self._calling.done():
            self._calling = asyncio.create_task(self._decide_waiting(), name="rate limit")
        decision = await future
        if decision is None:
            self._metrics.rate_limit_unavailable.inc()
        elif not decision.allowed:
            self._metrics.rate_limited.inc()
        return decision

    async def _decide_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            decisions: list[RateLimitDecision | None]
            try:
                decisions = list(await within(ANSWER_WITHIN_SECONDS, self._call([client for client, _ in batch])))
            except (RedisError, OSError, TimeoutError):
                # Requests that arrived during the failed call are allowed as well, because another call to Redis could
                # make them wait just as long.
                batch, self._waiting = batch + self._waiting, []
                decisions = [None] * len(batch)
            for (_, future), decision in zip(batch, decisions, strict=True):
                if not future.done():
                    future.set_result(decision)

    async def _call(self, clients: list[str]) -> list[RateLimitDecision]:
        pipeline = self._redis.pipeline(transaction=False)
        for client in clients:
            key = f"tidal:rate:{self._name}:{client}"
            pipeline.eval(_SCRIPT, 1, key, str(self._capacity), str(int(self._refill_seconds * 1_000_000)))
        return [self._decision(*map(int, answer)) for answer in await pipeline.execute()]

    def _decision(self, allowed: int, remaining: int, wait_microseconds: int) -> RateLimitDecision:
        return RateLimitDecision(
            allowed=bool(allowed),
            limit=self._capacity,
            remaining=remaining,
            wait_seconds=wait_microseconds / 1_000_000,
            window_seconds=self._capacity * self._refill_seconds,
        )
