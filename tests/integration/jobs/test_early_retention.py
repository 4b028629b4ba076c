"""When a disk is nearly full, the health process applies retention at once, by the same rules as always."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from common.artifacts import ArtifactStore
from common.config import Settings
from services.health import retention as module
from services.health.retention import LEFTOVER_SECONDS, RetentionLoop
from tests.integration.jobs.ended_jobs import ALL, ended, names
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus

ENDLESS_MB = 10**9
"""A reserve in MiB that is larger than any disk."""


@contextmanager
def tidying(engine: Engine, settings: Settings) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=RetentionLoop(engine, settings, stop, check_seconds=0.02).run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


@pytest.fixture
def settings_of_health(job_queue: JobQueue, tmp_path: Path) -> Settings:
    return job_queue.settings.model_copy(update={"data_dir": tmp_path / "data", "disk_reserve_mb": ENDLESS_MB})


def unfinished(settings: Settings, *, age: float) -> Path:
    """Create a checkpoint folder that was left unfinished `age` seconds ago, and return it."""
    folder = settings.experiments_dir / "exp" / "checkpoints" / ".tmp-0123"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"half")
    at = time.time() - age
    for path in (folder / "weights.safetensors", folder):
        os.utime(path, (at, at))
    return folder


def abandoned_cache(settings: Settings, name: str) -> Path:
    folder = settings.data_dir / "cache" / f".{name}.01234567.tmp"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"half")
    return folder


def wait_deleted(path: Path) -> None:
    deadline = time.monotonic() + 20
    while path.exists():
        assert time.monotonic() < deadline, f"{path} still exists"
        time.sleep(0.01)


def test_a_nearly_full_disk_starts_a_round_before_the_hour_is_over(
    engine: Engine, job_queue: JobQueue, settings_of_health: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EARLY_SECONDS", 0.05)
    settings = settings_of_health
    _, folder = ended(job_queue, ArtifactStore(settings.experiments_dir), JobStatus.COMPLETED, days=400)
    young = settings.experiments_dir / "other" / "checkpoints" / ".tmp-4567"
    young.mkdir(parents=True)
    with capture_logs() as log, tidying(engine, settings):
        wait_deleted(unfinished(settings, age=LEFTOVER_SECONDS + 60))
        wait_deleted(abandoned_cache(settings, "stories"))
        wait_deleted(unfinished(settings, age=LEFTOVER_SECONDS + 60))
    assert young.is_dir(), "a trainer may still be writing this checkpoint"
    assert names(folder) == ALL, "without retention a full disk deletes no files of a job"
    assert sum("nearly full" in line["event"] for line in log) == 1
    assert all(line["early"] for line in log if line["event"] == "old data was removed")


def test_with_retention_old_files_are_deleted_at_once(
    engine: Engine, job_queue: JobQueue, settings_of_health: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EARLY_SECONDS", 0.05)
    settings = settings_of_health.model_copy(update={"retention_days": 30.0})
    with tidying(engine, settings):
        wait_deleted(unfinished(settings, age=LEFTOVER_SECONDS + 60))
        _, old = ended(job_queue, ArtifactStore(settings.experiments_dir), JobStatus.COMPLETED, days=31)
        _, recent = ended(job_queue, ArtifactStore(settings.experiments_dir), JobStatus.COMPLETED, days=29)
        wait_deleted(old / "logs")
    assert names(recent) == ALL


def test_with_free_space_the_next_round_begins_after_an_hour(engine: Engine, settings_of_health: Settings) -> None:
    settings = settings_of_health.model_copy(update={"disk_reserve_mb": 0})
    first = unfinished(settings, age=LEFTOVER_SECONDS + 60)
    with tidying(engine, settings):
        wait_deleted(first)
        later = unfinished(settings, age=LEFTOVER_SECONDS + 60)
        time.sleep(0.3)
        assert later.is_dir()


def test_the_cache_of_a_running_builder_is_kept(engine: Engine, settings_of_health: Settings) -> None:
    building = abandoned_cache(settings_of_health, "stories")
    with building.with_name("stories.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        RetentionLoop(engine, settings_of_health, threading.Event()).round()
        assert building.is_dir()
    RetentionLoop(engine, settings_of_health, threading.Event()).round()
    assert not building.exists()
