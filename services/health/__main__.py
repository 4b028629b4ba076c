"""`python -m services.health`: does the periodic work that no other process does.

It runs three loops: the maintenance loop in the main thread, and the outbox relay and the retention loop in a
thread each. SIGTERM and SIGINT end it within about two seconds. It may also be killed at any moment, because every pass
of a loop is one transaction. Several health processes may run at the same time.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from sqlalchemy import Engine

from common.config import Settings, get_settings
from common.config.private_files import apply_umask
from common.db import make_engine, wait_for_schema
from common.errors import ConfigError, TidalError
from common.logging import configure, get_logger
from common.redis.publisher import RedisPublisher
from services.health.maintenance_loop import MaintenanceLoop
from services.health.outbox_relay import OutboxRelay
from services.health.retention import RetentionLoop

log = get_logger(__name__)


def main() -> int:
    """Run until a signal arrives. Return 1 if the database is not migrated, 2 if the settings are invalid."""
    configure("health")
    try:
        settings = get_settings()
        apply_umask(settings)
    except ConfigError as error:
        sys.stderr.write(f"tidal health: {error.message}\n")
        return 2
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    engine = make_engine(settings.database_url, application_name="tidal-health", pool_size=3, max_overflow=2)
    try:
        if not wait_for_schema(engine, stop):
            return 0
        _run(engine, settings, stop)
    except TidalError as error:
        log.error(error.message)
        return 1
    finally:
        engine.dispose()
    log.info("stopped")
    return 0


def _run(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    publishers = [RedisPublisher(settings.redis_url, stream_max_length=settings.stream_max_length) for _ in range(2)]
    relay = OutboxRelay(engine, publishers[0], stop)
    thread = threading.Thread(target=relay.run, name="outbox-relay", daemon=True)
    thread.start()
    retention = RetentionLoop(engine, settings, stop)
    # The process does not wait for the end of this thread, because the next health process deletes the files that
    # remain.
    threading.Thread(target=retention.run, name="retention", daemon=True).start()
    log.info(
        "the health process has started",
        maintenance_every_seconds=settings.reaper_seconds,
        retention_days=settings.retention_days,
    )
    try:
        MaintenanceLoop(engine, publishers[1], settings, stop, published=lambda: relay.published).run()
    finally:
        stop.set()
        thread.join(timeout=10)
        for publisher in publishers:
            publisher.close()


if __name__ == "__main__":
    sys.exit(main())
