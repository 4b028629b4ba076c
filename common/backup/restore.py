"""Restores a backup while all services are stopped.

The whole backup is unpacked and verified before any existing data is changed. Files are moved to their final folders
before the rows that refer to them are loaded. The tables are created with the backup's revision, filled, and then
migrated to this version's revision. Existing experiments, and existing datasets with the same name but a different
text, are moved to another folder and never deleted.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import redis
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy import text as sql

from common.artifacts import ArtifactStore
from common.backup.archive import EXPERIMENTS, TABLES, ArchiveReader, BackupManifest, Progress
from common.backup.datasets import DatasetPlan, plan_datasets, publish_datasets, unpacked_datasets
from common.backup.rows import count_rows, load_rows
from common.config import PROJECT_ROOT
from common.datasets import DatasetStore
from common.db import downgrade, make_engine, schema_status, upgrade
from common.errors import ConflictError
from common.files import require_space, storage_errors
from common.logging import get_logger
from common.redis.client import LONG_COMMAND, connect

log = get_logger(__name__)


@dataclass(frozen=True)
class RestoreResult:
    """What a restore has restored, moved and skipped."""

    saved_at: datetime
    """Time of the snapshot of the saved rows."""
    jobs: dict[str, int]
    """{status: number of jobs} after the restore."""
    experiments: int
    aside: Path | None
    """Folder to which the experiments from before the restore were moved; None if there were none."""
    datasets: int
    """Number of restored datasets. Datasets that already existed with the same text are not counted."""
    datasets_aside: Path | None
    """Folder to which existing datasets with the same names but different texts were moved; None if there were none."""
    damaged: tuple[str, ...]
    """Names of datasets that were not restored, because they were damaged when they were saved."""
    redis_emptied: bool


def restore_backup(
    path: Path,
    *,
    database_url: str | SecretStr,
    redis_url: str | SecretStr,
    experiments_dir: Path,
    data_dir: Path,
    force: bool = False,
    keep_files: bool = False,
    total: Callable[[int], None] = lambda size: None,
    progress: Progress = lambda size: None,
) -> RestoreResult:
    """Replace the existing rows and files with those of the backup, and empty Redis.

    `force` permits replacing existing rows, experiments and datasets (existing files are moved, not deleted).
    `keep_files` keeps existing files and restores only rows. `total` is called with the number of bytes to unpack,
    `progress` with the number of bytes unpacked since its last call. Raises ConflictError if a process uses the
    database or data would be lost without `force`, and InvalidInputError or StorageError if the file is not an intact
    backup.
    """
    engine = make_engine(database_url, application_name="tidal-restore", pool_size=1, statement_timeout=0)
    try:
        with ArchiveReader(path) as archive, storage_errors(experiments_dir):
            manifest = archive.manifest
            store, datasets = ArtifactStore(experiments_dir), DatasetStore(data_dir)
            plan = DatasetPlan({}, ()) if keep_files else plan_datasets(manifest, datasets)
            _check_conflicts(engine, manifest, store, plan, datasets, force=force, keep_files=keep_files)
            wanted = [
                name
                for name in sorted(manifest.members)
                if name.startswith(f"{TABLES}/") or (name.startswith(f"{EXPERIMENTS}/") and not keep_files)
            ]
            size = sum(manifest.members[name].size for name in wanted)
            total(size + plan.size)
            _require_space(store, size, datasets, plan.size)
            staging = store.root / f".restore-{uuid.uuid4().hex[:8]}"
            try:
                for name in wanted:
                    archive.extract(name, staging / name, progress)
                with unpacked_datasets(archive, plan, datasets, progress) as staged:
                    _require_unused(engine)  # a service may have started while files were unpacked
                    aside = _replace(
                        engine,
                        database_url,
                        manifest,
                        store,
                        staging,
                        keep_files=keep_files,
                        place_datasets=lambda: publish_datasets(staged, datasets),
                    )
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        with engine.connect() as connection:
            jobs = Counter(connection.scalars(sql("SELECT status FROM jobs")).all())
        return RestoreResult(
            saved_at=manifest.created_at,
            jobs=dict(sorted(jobs.items())),
            experiments=len(store.experiments()),
            aside=aside.experiments,
            datasets=len(staged),
            datasets_aside=aside.datasets,
            damaged=tuple(sorted(plan.needed.keys() - {dataset.manifest.name for dataset in staged})),
            redis_emptied=_empty_redis(redis_url),
        )
    finally:
        engine.dispose()


def _require_space(store: ArtifactStore, size: int, datasets: DatasetStore, text_size: int) -> None:
    """Raise OSError if the disks of experiments and datasets, possibly the same disk, have too little space."""
    store.root.mkdir(parents=True, exist_ok=True)
    if not text_size:
        require_space(store.root, size)
        return
    datasets.root.mkdir(parents=True, exist_ok=True)
    if store.root.stat().st_dev == datasets.root.stat().st_dev:
        require_space(store.root, size + text_size)
        return
    require_space(store.root, size)
    require_space(datasets.root, text_size)


def _check_conflicts(
    engine: Engine,
    manifest: BackupManifest,
    store: ArtifactStore,
    plan: DatasetPlan,
    datasets: DatasetStore,
    *,
    force: bool,
    keep_files: bool,
) -> None:
    """Raise ConflictError if the database is unsuitable or in use, or if `force` would be needed to replace data."""
    known = {script.revision for script in ScriptDirectory(str(PROJECT_ROOT / "migrations")).walk_revisions()}
    if manifest.revision not in known:
        raise ConflictError(
            f"the backup was written by Tidal {manifest.tidal} with database revision {manifest.revision}, which this "
            "version does not know; update Tidal first"
        )
    _require_unused(engine)
    if schema_status(engine).state == "ahead":
        raise ConflictError(schema_status(engine).message)
    rows = {
        name: count
        for name, count in count_rows(engine).items()
        if count and name in ("jobs", "experiments", "reports")
    }
    if rows and not force:
        found = ", ".join(f"{count} {name}" for name, count in rows.items())
        raise ConflictError(f"the database contains {found}; --force deletes them (make a backup first)")
    experiments = [] if keep_files else store.experiments()
    if experiments and not force:
        raise ConflictError(
            f"{store.root} contains {len(experiments)} experiments; --force moves them aside, --keep-files restores "
            "the database only"
        )
    if plan.conflicts and not force:
        raise ConflictError(
            f"{datasets.root} contains datasets with the same name but a different text: "
            f"{', '.join(plan.conflicts[:5])}{', …' if len(plan.conflicts) > 5 else ''}; --force moves them aside"
        )


def _require_unused(engine: Engine) -> None:
    users = _sessions(engine)
    if users:
        raise ConflictError(
            f"the database is in use by {', '.join(users)}; stop every service on every host first (`tidal down`, "
            "`docker compose stop`)"
        )


def _sessions(engine: Engine) -> list[str]:
    """Return each connected application of Tidal with its number of connections, as a text such as "tidal-api (3)"."""
    query = sql(
        "SELECT application_name, count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND application_name LIKE 'tidal%' GROUP BY 1 ORDER BY 1"
    )
    with engine.connect() as connection:
        return [f"{name} ({count})" for name, count in connection.execute(query)]


@dataclass(frozen=True)
class _Aside:
    """Folders to which the restore moved existing files; None if there were none."""

    experiments: Path | None
    datasets: Path | None


def _replace(
    engine: Engine,
    url: str | SecretStr,
    manifest: BackupManifest,
    store: ArtifactStore,
    staging: Path,
    *,
    keep_files: bool,
    place_datasets: Callable[[], Path | None],
) -> _Aside:
    """Replace tables and files. If this fails, the existing rows are lost, and a new restore with `force` is needed."""
    if schema_status(engine).state != "unmigrated":
        downgrade(url)
    upgrade(url, manifest.revision)
    aside = _Aside(None if keep_files else _place_experiments(store, staging / EXPERIMENTS), place_datasets())
    load_rows(engine, staging / TABLES, manifest.tables, saved_at=manifest.created_at, progress=lambda size: None)
    upgrade(url)
    return aside


def _place_experiments(store: ArtifactStore, staged: Path) -> Path | None:
    """Move the staged experiments into the store. Return the folder of the previous experiments, if there were any."""
    old = store.experiments()
    aside = store.root / f".before-restore-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    if old:
        aside.mkdir()
        for name in old:
            (store.root / name).rename(aside / name)
    for folder in staged.iterdir() if staged.is_dir() else ():
        folder.rename(store.root / folder.name)
    return aside if old else None


def _empty_redis(url: str | SecretStr) -> bool:
    """Delete notifications, event streams and heartbeats. Return False if Redis fails, which does no harm."""
    try:
        with connect(url, LONG_COMMAND) as client:
            client.flushdb()
    except redis.RedisError as error:
        log.warning("Redis could not be emptied", error=str(error))
        return False
    return True
