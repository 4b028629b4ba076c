"""Checks whether the resources that requests need are available: database, schema, Redis, artifact store, disk space
and the reaper."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from common.config import Settings
from common.db import schema_status
from common.disk import MIB, DiskReserve
from common.logging import get_logger
from common.redis.heartbeat import MAINTENANCE_FIELDS, maintenance_problem
from common.redis.keys import HEALTH
from services.api.context import Context
from tidal_client.wire.health import Part, Ready

log = get_logger(__name__)

REDIS_SECONDS = 2.0


async def readiness(context: Context) -> Ready:
    """Check all resources concurrently. A resource that does not answer is reported as not ok; no exception is
    raised."""
    (database, schema), redis, store, disk, maintenance = await asyncio.gather(
        run_in_threadpool(_database, context),
        _redis(context),
        run_in_threadpool(_store, context.store.root),
        run_in_threadpool(_disk, context.settings),
        _maintenance(context),
    )
    parts = {
        "database": database,
        "schema": schema,
        "redis": redis,
        "store": store,
        "disk": disk,
        "sweeps": maintenance,
    }
    return Ready(ready=all(part.ok for part in parts.values() if part.required), parts=parts)


def _database(context: Context) -> tuple[Part, Part]:
    try:
        status = schema_status(context.engine)
    except SQLAlchemyError as error:
        log.warning("the database cannot be reached", error=str(getattr(error, "orig", error)).splitlines()[0])
        detail = "the database cannot be reached; check TIDAL_DATABASE_URL and that PostgreSQL runs"
        return Part(ok=False, detail=detail), Part(ok=False, detail="unknown, the database cannot be reached")
    return Part(ok=True, detail="ok"), Part(ok=status.state == "current", detail=status.message)


async def _redis(context: Context) -> Part:
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            await context.redis.set("tidal:ready", "1", ex=60)
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("Redis cannot be reached or does not accept writes", error=str(error))
        return Part(
            ok=False,
            detail="Redis cannot be reached or does not accept writes; check TIDAL_REDIS_URL and its memory limit",
        )
    return Part(ok=True, detail="ok")


async def _maintenance(context: Context) -> Part:
    """Check that the health process does its periodic work: reaper, outbox and retention.

    The api is ready even without this work: lost jobs are then not requeued, but requests are still served.
    """
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            last_pass_at, trouble = await context.redis.hmget(HEALTH, MAINTENANCE_FIELDS)
    except (RedisError, OSError, TimeoutError):
        return Part(ok=False, required=False, detail="unknown, Redis cannot be reached")
    wrong = maintenance_problem(_decode(last_pass_at), _decode(trouble), context.settings.reaper_seconds)
    return Part(ok=not wrong, required=False, detail=wrong or "ok")


def _decode(value: bytes | str | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _store(root: Path) -> Part:
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Part(ok=False, detail="TIDAL_EXPERIMENTS_DIR is not a folder that this process may write to; check it")
    return Part(ok=True, detail="ok")


def _disk(settings: Settings) -> Part:
    """Check the disk reserve.

    The api is ready even with less free space: trainings then wait and uploads fail, but other requests are served.
    """
    reserve = DiskReserve(
        {"experiments": settings.experiments_dir, "data": settings.data_dir}, settings.disk_reserve_mb * MIB
    )
    shortage = reserve.shortage("experiments", "data")
    if shortage is None:
        return Part(ok=True, required=False, detail="ok")
    return Part(
        ok=False,
        required=False,
        detail=f"{shortage} (TIDAL_DISK_RESERVE_MB); training waits until there is space",
    )
