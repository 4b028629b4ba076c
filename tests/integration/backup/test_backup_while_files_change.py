"""Backups of a working system: files are deleted or become unreadable during the backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from common.backup import read_manifest
from common.config import Settings
from common.errors import StorageError
from tests.integration.backup.backups import save


def experiment(settings: Settings, name: str) -> Path:
    folder = settings.experiments_dir / name
    folder.mkdir(parents=True)
    (folder / "model.pth").write_text(name)
    return folder


def test_an_experiment_deleted_during_a_backup_is_left_out(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    folders = [experiment(settings, name) for name in ("one", "two")]
    deleted: list[Path] = []

    def deletes(size: int) -> None:
        if not deleted:
            deleted.extend(folders)
            for folder in folders:
                shutil.rmtree(folder)

    target = tmp_path / "saved.tar"
    save(settings, target, progress=deletes)
    files = [name for name in read_manifest(target).members if name.startswith("experiments/")]
    assert files == ["experiments/one/model.pth"]  # the backup read this file before the test deleted it


def test_what_cannot_be_read_is_named(
    settings: Settings, sessions: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment(settings, "one") / "logs"
    folder.mkdir()
    scandir = os.scandir

    def refuses(path: Path) -> Iterator[os.DirEntry[str]]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("common.backup.files.os.scandir", refuses)
    target = tmp_path / "saved.tar"
    with pytest.raises(StorageError, match="one/logs: cannot be read \\(Permission denied\\)"):
        save(settings, target)
    assert not target.exists()
