"""What a corpus may be called and where its file may lie.

A name is `builtin:stories`, a dataset that was uploaded (`common.datasets`), a .txt, .jsonl or .parquet file, or
owner/name of a data set on the hub. A relative file lies below the data folder and nowhere else; a job may not even
name an absolute one outside it. Leaves out reading (`source`).
"""

from __future__ import annotations

import re
from pathlib import Path

from common.config.lm import DataConfig
from common.datasets import SUFFIXES, DatasetStore, Manifest, is_dataset_name, nearest
from common.errors import DataError, NotFoundError

BUILTIN_STORIES = "builtin:stories"
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


def is_file_name(source: str) -> bool:
    """Whether a source is a path, told by its suffix or by being absolute or relative to a folder."""
    return source.lower().endswith(SUFFIXES) or source.startswith(("/", "./", "../", "~"))


def is_hub_name(source: str) -> bool:
    """Whether a source is a data set on the hub."""
    return not source.startswith("builtin:") and not is_file_name(source) and not is_dataset_name(source)


def find_dataset(name: str, data_dir: Path) -> tuple[Manifest, Path]:
    """The dataset of this name and its text. DataError when there is none, or its text is not as it was."""
    store = DatasetStore(data_dir)
    try:
        manifest = store.find(name)
    except NotFoundError:
        like = nearest(name, store.names())
        meant = f"did you mean '{like}'?" if like else f"upload it, or name {BUILTIN_STORIES} or a file"
        raise DataError(f"there is no dataset '{name}' below {store.root}; {meant}") from None
    path = store.text(manifest)
    if not path.is_file() or path.stat().st_size != manifest.size_bytes:
        raise DataError(f"dataset '{name}' is damaged: {path} is missing or not {manifest.size_bytes} bytes long")
    return manifest, path


def locate(source: str, data_dir: Path) -> Path:
    """The file below `data_dir`, or anywhere for an absolute path. DataError when there is none, or it leads out."""
    if Path(source).suffix.lower() not in SUFFIXES:
        raise DataError(f"{source}: a local corpus is a file with suffix {', '.join(SUFFIXES)}")
    path = _resolve(source, data_dir)
    if not Path(source).expanduser().is_absolute():
        _check_inside(source, data_dir)
    if not path.is_file():
        raise DataError(f"no such corpus: {path}; name a file below the data folder {data_dir.absolute()}")
    return path


def require_inside(config: DataConfig, data_dir: Path) -> None:
    """What a job asks before it opens a corpus: DataError when a file of it, links followed, is outside `data_dir`."""
    for source in (config.source, config.validation_source):
        if source is not None and is_file_name(source):
            _check_inside(source, data_dir)


def seen_from_here(config: DataConfig, data_dir: Path) -> DataConfig:
    """For commands of the terminal's user: files that `data_dir` has not are named from the working directory."""

    def name(source: str | None) -> str | None:
        if source is None or not is_file_name(source):
            return source
        below = _resolve(source, data_dir)
        if below.is_file() and below.is_relative_to(data_dir.resolve()):
            return source
        path = Path(source).expanduser()
        return str(path.resolve()) if path.is_file() else source

    found = {"source": name(config.source), "validation_source": name(config.validation_source)}
    return config.model_copy(update=found)


def check_hub_name(name: str) -> None:
    """DataError when `name` is not of the form owner/name, or stands for something here."""
    if not _HUB_NAME.fullmatch(name):
        raise DataError(
            f"{name}: names no corpus; write {BUILTIN_STORIES}, a dataset, a {', '.join(SUFFIXES)} file, "
            "or owner/name of the hub"
        )
    # The library would take a local folder for the data set, and read whatever lies in it.
    if Path(name).exists():
        raise DataError(
            f"{name}: there is a local folder of this name, so it cannot be fetched from the hub; rename it"
        )


def _resolve(source: str, data_dir: Path) -> Path:
    return (data_dir / Path(source).expanduser()).resolve()


def _check_inside(source: str, data_dir: Path) -> None:
    if not _resolve(source, data_dir).is_relative_to(data_dir.resolve()):
        raise DataError(
            f"{source} leads outside the data folder {data_dir.absolute()}; put the file there and name it from there"
        )
