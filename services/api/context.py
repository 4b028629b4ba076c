"""The resources that all endpoints share: settings, database sessions, Redis clients, streams and counters.

Connections are opened on first use. The api therefore starts even if the database or Redis is unavailable, which
`/readyz` then reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from celery import Celery
from fastapi import Request
from redis.asyncio import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.access import Rejections
from common.artifacts import ArtifactStore
from common.chat.template import TemplateRenderer
from common.config import Settings
from common.config.server_paths import ServerPaths
from common.datasets import DatasetStore
from common.db import make_engine, session_factory
from common.redis.celery_settings import make_producer
from common.redis.client import blocking_read_options, connect_async, rate_limiter_options, request_options
from common.redis.publisher import RedisPublisher
from services.api.connections import Limits, limits_of
from services.api.generations import Generations
from services.api.http_metrics import HttpMetrics
from services.api.publishing import OutboxThread
from services.api.rate_limit import RateLimiter
from services.api.sizes import SizeCache
from services.api.streaming.clients import StreamClients
from services.api.streaming.hub import BLOCK_MILLISECONDS, StreamHub
from services.api.streaming.snapshots import StreamSnapshots
from services.api.token_register import TokenRegister
from services.api.workers import Outlook, WorkerCache

DECODERS = 2
"""Maximum number of parquet uploads that are decoded at the same time."""


@dataclass(frozen=True)
class Context:
    """The resources of one app."""

    settings: Settings
    token: str = field(repr=False)
    engine: Engine
    sessions: sessionmaker[Session]
    redis: Redis
    blocking_redis: Redis
    limiter_redis: Redis
    metrics: HttpMetrics
    limits: Limits
    paths: ServerPaths
    rejections: Rejections
    tokens: TokenRegister
    hub: StreamHub
    stream_clients: StreamClients
    snapshots: StreamSnapshots
    generations: Generations
    limiter: RateLimiter
    token_limiter: RateLimiter | None
    store: ArtifactStore
    datasets: DatasetStore
    celery: Celery
    outbox: OutboxThread
    outlook: Outlook
    sizes: SizeCache
    templates: TemplateRenderer
    decoders: asyncio.Semaphore
    """Held by each parquet upload while it is decoded. If DECODERS uploads hold it, further ones wait."""

    async def close(self) -> None:
        """End all streams and close all connections."""
        await self.hub.close()
        await self.generations.close()
        await self.tokens.close()
        for client in (self.redis, self.blocking_redis, self.limiter_redis):
            await client.aclose()
        self.outbox.close()
        self.outlook.workers.close()
        self.templates.close()
        self.celery.close()
        self.engine.dispose()


def make_context(settings: Settings, token: str) -> Context:
    """Build the resources without opening a connection."""
    engine = make_engine(settings.database_url, application_name="tidal-api")
    metrics = HttpMetrics()
    limits = limits_of(settings)
    # In a burst, requests wait for one of at most 50 connections instead of failing. `blocking` has a pool of its own,
    # because a blocking read occupies its connection for seconds.
    most = min(50, limits.connections)
    redis = connect_async(settings.redis_url, request_options(most))
    blocking = connect_async(settings.redis_url, blocking_read_options(BLOCK_MILLISECONDS))
    limiter_redis = connect_async(settings.redis_url, rate_limiter_options(most))
    hub = StreamHub(redis, blocking, metrics, linger_seconds=settings.stream_linger_seconds)
    store = ArtifactStore(settings.experiments_dir)
    return Context(
        settings=settings,
        token=token,
        engine=engine,
        sessions=session_factory(engine),
        redis=redis,
        blocking_redis=blocking,
        limiter_redis=limiter_redis,
        metrics=metrics,
        limits=limits,
        paths=ServerPaths(settings),
        rejections=Rejections(),
        tokens=TokenRegister(settings),
        hub=hub,
        stream_clients=StreamClients(
            metrics, hub.wake, send_seconds=settings.stream_client_seconds, limit=limits.streams
        ),
        snapshots=StreamSnapshots(hub.position),
        generations=Generations(redis, blocking, redis_seconds=settings.generate_redis_seconds),
        limiter=RateLimiter(
            limiter_redis,
            metrics,
            name="generate",
            capacity=settings.rate_limit_capacity,
            refill_seconds=settings.rate_limit_refill_seconds,
        ),
        token_limiter=RateLimiter(
            limiter_redis,
            metrics,
            name="token",
            capacity=settings.token_rate_limit_capacity,
            refill_seconds=settings.token_rate_limit_refill_seconds,
        )
        if settings.token_rate_limit_capacity
        else None,
        store=store,
        datasets=DatasetStore(settings.data_dir),
        celery=make_producer("tidal-api", settings.redis_url),
        outbox=OutboxThread(engine, RedisPublisher(settings.redis_url, stream_max_length=settings.stream_max_length)),
        outlook=Outlook(settings, WorkerCache(settings.redis_url.get_secret_value())),
        sizes=SizeCache(store, settings.data_dir),
        templates=TemplateRenderer(),
        decoders=asyncio.Semaphore(DECODERS),
    )


def context_of(request: Request) -> Context:
    """Return the context of the app (a FastAPI dependency)."""
    context: Context = request.app.state.context
    return context


def session_of(request: Request) -> Iterator[Session]:
    """Yield a session for reading (a FastAPI dependency). It is closed without a commit before the reply is sent."""
    with context_of(request).sessions() as session:
        yield session
