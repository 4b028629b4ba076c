"""A backup contains the datasets; links are left out and reported. A restore replaces datasets only with --force."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from common.backup import read_manifest
from common.config import Settings
from common.datasets import DatasetStore, TokenRecord
from common.errors import ConflictError
from tests.integration.backup.backups import TEXT, restore, save, upload


def text_of(settings: Settings, name: str) -> bytes:
    store = DatasetStore(settings.data_dir)
    return store.text(store.find(name)).read_bytes()


def hidden(settings: Settings) -> list[str]:
    return sorted(path.name for path in (settings.data_dir / "datasets").iterdir() if path.name.startswith("."))


@pytest.fixture(autouse=True)
def migrated(sessions: sessionmaker[Session], engine: Engine) -> None:
    engine.dispose()


def test_a_dataset_comes_back_with_its_tokens_counted(settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    manifest = upload(settings, "tales")
    record = TokenRecord(
        sha256=manifest.sha256, train_tokens=9, validation_tokens=3, documents=2, digest="d",
        created_at=manifest.created_at,
    )  # fmt: skip
    DatasetStore(settings.data_dir).record_tokens("tales", record)
    upload(settings, "more", b"Another text.")
    (settings.data_dir / "datasets" / ".incoming-half").mkdir()
    (settings.data_dir / "corpus.txt").write_text("no dataset")
    done: list[int] = []
    expected: list[int] = []
    saved = save(settings, tmp_path / "saved.tar", total=expected.append, progress=done.append)
    assert saved.datasets == 2 and saved.skipped == ()
    assert sum(done) == expected[0], "the progress includes the datasets"
    restored = restore(tmp_path / "saved.tar", elsewhere)
    assert restored.datasets == 2 and restored.damaged == ()
    store = DatasetStore(elsewhere.data_dir)
    assert store.names() == ["more", "tales"]
    assert store.find("tales") == manifest and store.tokens(manifest) == record
    assert text_of(elsewhere, "tales") == TEXT and text_of(elsewhere, "more") == b"Another text."
    assert hidden(elsewhere) == [".lock"]


def test_without_datasets_none_is_saved_and_such_a_backup_restores(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    upload(settings, "tales")
    saved = save(settings, tmp_path / "saved.tar", datasets=False)
    assert saved.datasets == 0
    # Earlier versions wrote backups without datasets.
    assert {name.split("/")[0] for name in read_manifest(tmp_path / "saved.tar").members} == {"tables"}
    mine = upload(elsewhere, "mine")
    restored = restore(tmp_path / "saved.tar", elsewhere)
    assert restored.datasets == 0
    assert DatasetStore(elsewhere.data_dir).manifests() == [mine]


def test_the_same_text_stays_and_another_is_put_aside_by_force_only(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    for name in ("same", "other", "lost"):
        upload(settings, name)
    save(settings, tmp_path / "saved.tar")
    upload(elsewhere, "same")
    kept = (elsewhere.data_dir / "datasets" / "same").stat().st_ino
    upload(elsewhere, "other", b"Newer text.")
    upload(elsewhere, "own", b"Not in the backup.")
    cache = elsewhere.data_dir / "cache" / "other-1"
    cache.mkdir(parents=True)
    (cache / "header.json").write_text(json.dumps({"data": {"source": "other", "validation_source": None}}))
    with pytest.raises(ConflictError, match="with the same name but a different text: other; --force moves them aside"):
        restore(tmp_path / "saved.tar", elsewhere)
    assert text_of(elsewhere, "other") == b"Newer text."
    restored = restore(tmp_path / "saved.tar", elsewhere, keep_files=True)
    assert restored.datasets == 0 and not DatasetStore(elsewhere.data_dir).has("lost")
    restored = restore(tmp_path / "saved.tar", elsewhere, force=True)
    assert restored.datasets == 2
    assert {name: text_of(elsewhere, name) for name in ("same", "other", "lost")} == dict.fromkeys(
        ("same", "other", "lost"), TEXT
    )
    assert (elsewhere.data_dir / "datasets" / "same").stat().st_ino == kept
    assert text_of(elsewhere, "own") == b"Not in the backup."
    assert restored.datasets_aside is not None
    assert (restored.datasets_aside / "other" / "text.txt").read_bytes() == b"Newer text."
    assert not cache.exists(), "the token cache belonged to the replaced text"


def test_a_dataset_deleted_or_uploaded_meanwhile_is_saved_completely_or_not_at_all(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        upload(settings, name, name.encode() * 10)
    store = DatasetStore(settings.data_dir)
    changed: list[str] = []

    def changes(size: int) -> None:
        if not changed:
            changed.append("")
            store.delete("a")
            store.delete("b")
            upload(settings, "b", b"newer")
            upload(settings, "d", b"new")

    save(settings, tmp_path / "saved.tar", progress=changes)
    restored = restore(tmp_path / "saved.tar", elsewhere)
    assert restored.damaged == ()
    found = {name: text_of(elsewhere, name) for name in DatasetStore(elsewhere.data_dir).names()}
    assert found.pop("b") in (b"b" * 10, b"newer") and found.pop("c") == b"c" * 10
    assert found.items() <= {"a": b"a" * 10, "d": b"new"}.items()


def test_a_dataset_that_was_damaged_before_costs_nothing_but_itself(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    for name in ("good", "bad", "headless"):
        upload(settings, name)
    root = settings.data_dir / "datasets"
    (root / "bad" / "text.txt").write_bytes(TEXT[::-1])
    (root / "headless" / "manifest.json").write_text("{")
    save(settings, tmp_path / "saved.tar")
    restored = restore(tmp_path / "saved.tar", elsewhere)
    assert restored.damaged == ("bad", "headless") and restored.datasets == 1
    assert DatasetStore(elsewhere.data_dir).names() == ["good"]
    assert hidden(elsewhere) == [".lock"]


def test_links_are_left_out_and_named(settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for name in ("experiment", "checkpoint"):
        (outside / name).mkdir(parents=True)
        (outside / name / "manifest.json").write_text("secret")
    experiments = settings.experiments_dir
    (experiments / "one" / "checkpoints").mkdir(parents=True)
    (experiments / "one" / "model.pth").write_text("kept")
    (experiments / "two").symlink_to(outside / "experiment")
    (experiments / "three").symlink_to(experiments / "one")
    (experiments / "dead").symlink_to(outside / "nothing")
    (experiments / "one" / "checkpoints" / "step-1").symlink_to(outside / "checkpoint")
    (experiments / "one" / "best.json").symlink_to(outside / "checkpoint" / "manifest.json")
    upload(settings, "tales")
    shutil.copytree(settings.data_dir / "datasets" / "tales", outside / "linked")
    (settings.data_dir / "datasets" / "linked").symlink_to(outside / "linked")
    saved = save(settings, tmp_path / "saved.tar")
    assert set(saved.skipped) == {
        experiments / "two",
        experiments / "three",
        experiments / "one" / "checkpoints" / "step-1",
        experiments / "one" / "best.json",
        settings.data_dir / "datasets" / "linked",
    }
    members = [name for name in read_manifest(tmp_path / "saved.tar").members if not name.startswith("tables/")]
    assert sorted(members) == ["datasets/tales/manifest.json", "datasets/tales/text.txt", "experiments/one/model.pth"]
    restore(tmp_path / "saved.tar", elsewhere)
    assert (elsewhere.experiments_dir / "one" / "model.pth").read_text() == "kept"


def tidal(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `tidal` command in a process, as a container of the compose file does."""
    environment = {
        **os.environ,
        "TIDAL_DATABASE_URL": settings.database_url.get_secret_value(),
        "TIDAL_REDIS_URL": settings.redis_url.get_secret_value(),
        "TIDAL_EXPERIMENTS_DIR": str(settings.experiments_dir),
        "TIDAL_DATA_DIR": str(settings.data_dir),
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_commands_name_what_they_leave_out(settings: Settings, elsewhere: Settings, tmp_path: Path) -> None:
    upload(settings, "tales")
    (tmp_path / "far").mkdir()
    settings.experiments_dir.mkdir()
    (settings.experiments_dir / "moved").symlink_to(tmp_path / "far")
    done = tidal(settings, "backup", str(tmp_path / "without.tar"), "--without-datasets")
    assert done.returncode == 0, done.stderr
    assert "0 experiments (0 files) and 0 datasets in" in done.stdout
    assert f"Not saved: {settings.experiments_dir / 'moved'} is a symbolic link" in done.stderr
    done = tidal(settings, "backup", str(tmp_path / "with.tar"))
    assert "and 1 dataset in" in done.stdout, done.stdout + done.stderr
    upload(elsewhere, "tales", b"Another text.")
    done = tidal(elsewhere, "restore", str(tmp_path / "with.tar"))
    assert done.returncode == 1 and "a different text: tales" in done.stderr
    done = tidal(elsewhere, "restore", str(tmp_path / "with.tar"), "--force")
    assert done.returncode == 0 and "1 dataset." in done.stdout, done.stderr
    assert "The previous datasets were moved to" in done.stdout
    assert text_of(elsewhere, "tales") == TEXT
