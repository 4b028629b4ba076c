"""Helpers that back up and restore the installation that a `Settings` object describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.backup import BackupResult, RestoreResult, create_backup, restore_backup
from common.config import Settings
from common.datasets import DatasetIntake, DatasetManifest, DatasetStore

TEXT = b"The tide came in.<|endoftext|>The tide went out."


def save(settings: Settings, target: Path, **options: Any) -> BackupResult:
    """Write a backup to `target`; `options` are those of `create_backup`."""
    return create_backup(
        target,
        database_url=settings.database_url,
        experiments_dir=settings.experiments_dir,
        data_dir=settings.data_dir,
        **options,
    )


def restore(backup: Path, settings: Settings, **options: Any) -> RestoreResult:
    """Restore `backup` into the installation; `options` are those of `restore_backup`."""
    return restore_backup(
        backup,
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        experiments_dir=settings.experiments_dir,
        data_dir=settings.data_dir,
        **options,
    )


def upload(settings: Settings, name: str, text: bytes = TEXT) -> DatasetManifest:
    """Store a dataset and return its manifest."""
    with DatasetIntake(DatasetStore(settings.data_dir), name, "txt", limit_bytes=2**20) as intake:
        intake.write(text)
        return intake.publish()[0]
