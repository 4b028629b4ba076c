"""Where the file of a corpus may lie, and which dataset a name means.

A relative file lies below the data folder and nowhere else; a job may not even name an absolute one outside it. Leaves
out what a corpus may be called (`common.datasets.names`) and reading (`source`).
"""

from __future__ import annotations

from pathlib import Path

from common.config.lm import DataConfig
from common.datasets import (
    BUILTIN_STORIES,
    DatasetManifest,
    DatasetStore,
    file_name_problem,
    is_file_name,
    nearest,
    shown,
    source_problem,
)
from common.errors import DataError, NotFoundError


def find_dataset(name: str, data_dir: Path) -> tuple[DatasetManifest, Path]:
    """The dataset of this name and its text. DataError when there is none, or its text is not as it was."""
    store = DatasetStore(data_dir)
    try:
        manifest = store.find(name)
    except NotFoundError:
        like = nearest(name, store.names())
        other = file_name_problem(name) or f"upload it, or name {BUILTIN_STORIES} or a file"
        meant = f"did you mean '{like}'?" if like else other
        raise DataError(f"there is no dataset '{name}' below {store.root}; {meant}") from None
    path = store.text(manifest)
    if not path.is_file() or path.stat().st_size != manifest.size_bytes:
        raise DataError(f"dataset '{name}' is damaged: {path} is missing or not {manifest.size_bytes} bytes long")
    return manifest, path


def find_file(source: str, data_dir: Path) -> Path:
    """The file below `data_dir`, or anywhere for an absolute path. DataError when there is none, or it leads out."""
    require_valid_source(source)
    path = _resolve(source, data_dir)
    if not source.startswith(("/", "~")):
        _check_inside(source, data_dir)
    if not _is_file(path):
        raise DataError(f"no such corpus: {path}; name a file below the data folder {data_dir.absolute()}")
    return path


def require_inside(config: DataConfig, data_dir: Path) -> None:
    """What a job asks before it opens a corpus: DataError when a file of it, links followed, is outside `data_dir`."""
    for source in (config.source, config.validation_source):
        if source is not None and is_file_name(source):
            _check_inside(source, data_dir)


def resolve_local_files(config: DataConfig, data_dir: Path) -> DataConfig:
    """For commands of the terminal's user: files that `data_dir` has not are named from the working directory."""

    def name(source: str | None) -> str | None:
        if source is None or not is_file_name(source):
            return source
        below = _resolve(source, data_dir)
        if _is_file(below) and below.is_relative_to(data_dir.resolve()):
            return source
        path = _resolve(source, Path.cwd())
        return str(path) if _is_file(path) else source

    found = {"source": name(config.source), "validation_source": name(config.validation_source)}
    return config.model_copy(update=found)


def require_valid_source(source: str) -> None:
    """DataError when `source` can name no corpus at all."""
    if (refusal := source_problem(source)) is not None:
        raise DataError(refusal)


def require_hub_name(name: str) -> None:
    """DataError when `name` is not of the form owner/name, or stands for something here."""
    require_valid_source(name)
    # The library would take a local folder for the data set, and read whatever lies in it.
    if Path(name).exists():
        raise DataError(
            f"{name}: there is a local folder of this name, so it cannot be fetched from the hub; rename it"
        )


def _resolve(source: str, data_dir: Path) -> Path:
    """DataError for a path that the system cannot follow: an unknown user's home, a loop of links, a NUL."""
    try:
        return (data_dir / Path(source).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{shown(source)}: this path cannot be followed ({error}); name the file by another") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _check_inside(source: str, data_dir: Path) -> None:
    if not _resolve(source, data_dir).is_relative_to(data_dir.resolve()):
        raise DataError(
            f"{source} leads outside the data folder {data_dir.absolute()}; put the file there and name it from there"
        )
