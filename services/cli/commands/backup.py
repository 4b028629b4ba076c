"""`tidal backup` and `tidal restore`: save all data of an installation to one file, and restore it.

If TIDAL_DATABASE_URL is set, as in a container of the compose file, the commands use the database, Redis and folders
that the environment names. Otherwise they use the database, Redis and folders of the local stack. If the stack is not
running, the commands start its database and Redis until the backup or the restore has finished. Backups are written and
restored by `common.backup`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from common.config import get_settings
from common.config.private_files import apply_umask
from common.errors import ConflictError
from common.words import plural
from services.cli.output import err, format_size, out
from services.cli.processes import stack_environment
from tidal_client import instance_folder, read_instance

QUIET_SECONDS = 2.0
"""Delay in seconds before the progress bar appears."""


@dataclass(frozen=True)
class BackupLocations:
    """Addresses and folders of the data to save or to restore."""

    database_url: str
    redis_url: str
    experiments_dir: Path
    data_dir: Path


def backup(
    target: Annotated[
        Path | None,
        typer.Argument(
            help="File to write, or a folder in which to write a file whose name contains the time. [default: the "
            "current folder]"
        ),
    ] = None,
    without_datasets: Annotated[
        bool,
        typer.Option(
            "--without-datasets",
            help="Do not save datasets. After a restore, jobs find only datasets that are already in the data folder.",
        ),
    ] = False,
) -> None:
    """Save all jobs, experiments and datasets in one file. Tidal can keep running during the backup.

    The file does not contain other corpora of the data folder, token caches, `.env` or access tokens. Restore the file
    with `tidal restore`.
    """
    # Imported here because the import takes half a second, which would delay other commands.
    from common.backup import create_backup

    place = (target or Path.cwd()).absolute()
    if place.is_dir():
        place /= f"tidal-backup-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar"
    with _places() as places, _bar("Saving") as bar:
        saved = create_backup(
            place,
            database_url=places.database_url,
            experiments_dir=places.experiments_dir,
            data_dir=places.data_dir,
            datasets=not without_datasets,
            total=bar.expect,
            progress=bar.advance,
        )
    for link in saved.skipped:
        err.print(f"Not saved: {link} is a symbolic link; back up its target separately.", soft_wrap=True)
    out.print(
        f"Saved {plural(saved.jobs, 'job')}, {plural(saved.experiments, 'experiment')} "
        f"({plural(saved.files, 'file')}) and {plural(saved.datasets, 'dataset')} in {place}, "
        f"{format_size(saved.size)}.",
        soft_wrap=True,
    )


def restore(
    file: Annotated[Path, typer.Argument(help="Backup file written by `tidal backup`.")],
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete the existing jobs. Move existing experiments, and datasets whose text differs from the "
            "backup, to another folder.",
        ),
    ] = False,
    keep_files: Annotated[
        bool, typer.Option("--keep-files", help="Restore only the jobs; keep the existing experiments and datasets.")
    ] = False,
) -> None:
    """Restore a backup. During the restore, no process of Tidal on any host may use the database.

    The whole backup is verified before anything is changed. Jobs that were running when the backup was made continue
    from their newest checkpoint.
    """
    from common.backup import restore_backup

    apply_umask(get_settings())  # give restored files the same permissions as files of the services
    if not _given() and read_instance() is not None:
        raise ConflictError(f"the local stack in {instance_folder()} is running; stop it first with `tidal down`")
    with _places() as places, _bar("Restoring") as bar:
        restored = restore_backup(
            file.absolute(),
            database_url=places.database_url,
            redis_url=places.redis_url,
            experiments_dir=places.experiments_dir,
            data_dir=places.data_dir,
            force=force,
            keep_files=keep_files,
            total=bar.expect,
            progress=bar.advance,
        )
    jobs = ", ".join(f"{count} {status}" for status, count in restored.jobs.items()) or "no jobs"
    out.print(
        f"Restored the state of {restored.saved_at.astimezone():%Y-%m-%d %H:%M:%S}: {jobs}; "
        f"{plural(restored.experiments, 'experiment')}, {plural(restored.datasets, 'dataset')}.",
        soft_wrap=True,
    )
    for what, aside in (("experiments", restored.aside), ("datasets", restored.datasets_aside)):
        if aside is not None:
            out.print(
                f"The previous {what} were moved to {aside}; delete them if you do not need them.", soft_wrap=True
            )
    if restored.damaged:
        names = ", ".join(restored.damaged)
        err.print(f"Not restored, because they were already damaged when the backup was made: {names}.", soft_wrap=True)
    if not restored.redis_emptied:
        err.print(
            "Redis did not respond, so its old data was not deleted: run FLUSHDB in Redis before you start the "
            "services."
        )
    err.print("Start the services now. Jobs that were running when the backup was made go back to the queue.")


def _given() -> bool:
    return "database_url" in get_settings().model_fields_set


@contextmanager
def _places() -> Iterator[BackupLocations]:
    """Yield the locations of database, Redis and folders.

    If the local stack is not running, its database and Redis are started, and run until the block ends.
    """
    settings, instance = get_settings(), read_instance()
    if _given():
        yield BackupLocations(
            settings.database_url.get_secret_value(),
            settings.redis_url.get_secret_value(),
            settings.experiments_dir,
            settings.data_dir,
        )
        return
    if instance is not None:
        yield BackupLocations(
            instance.database_url, instance.redis_url, Path(instance.experiments_dir), Path(instance.data_dir)
        )
        return
    lender = subprocess.Popen(
        [sys.executable, "-m", "services.local", "lend"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=stack_environment(),
        text=True,
        start_new_session=True,  # Ctrl-C must not reach the child; closing its stdin ends it
    )
    assert lender.stdin is not None
    assert lender.stdout is not None
    try:
        line = lender.stdout.readline()
        if not line:  # the child failed and has already printed the reason
            raise typer.Exit(lender.wait() or 1)
        lent = json.loads(line)
        yield BackupLocations(
            lent["database_url"], lent["redis_url"], Path(lent["experiments_dir"]), Path(lent["data_dir"])
        )
    finally:
        lender.stdin.close()
        lender.wait()
        lender.stdout.close()


class _DelayedBar:
    """A progress bar that appears only if the work takes longer than QUIET_SECONDS."""

    def __init__(self, shown: Progress, what: str) -> None:
        self._shown, self._what = shown, what
        self._total = self._done = 0
        self._task: TaskID | None = None
        self._began = time.monotonic()

    def expect(self, total: int) -> None:
        self._total = total

    def advance(self, count: int) -> None:
        self._done += count
        if self._task is None and time.monotonic() - self._began > QUIET_SECONDS:
            self._task = self._shown.add_task(self._what, total=self._total)
            self._shown.start()
        if self._task is not None:
            self._shown.update(self._task, completed=self._done, total=max(self._total, self._done))


@contextmanager
def _bar(what: str) -> Iterator[_DelayedBar]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=err, transient=True)
    try:
        yield _DelayedBar(shown, what)
    finally:
        shown.stop()
