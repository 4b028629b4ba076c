"""Finds the file or dataset that a corpus name refers to, and checks that it is inside the data folder.

A relative path must not lead outside the data folder. A job must not name an absolute path outside it either. The
syntax of corpus names is in `common.datasets.names`; `common.data.source` reads a corpus.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from common.config.data import DataConfig, WeightedCorpus
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

S = TypeVar("S", DataConfig, WeightedCorpus)


def find_dataset(name: str, data_dir: Path) -> tuple[DatasetManifest, Path]:
    """Return the manifest of a dataset and the path of its text.

    Raises DataError if there is no such dataset, or if its text is missing or has the wrong size.
    """
    store = DatasetStore(data_dir)
    try:
        manifest = store.find(name)
    except NotFoundError:
        similar = nearest(name, store.names())
        advice = file_name_problem(name) or f"upload it, or use {BUILTIN_STORIES} or a file"
        hint = f"did you mean '{similar}'?" if similar else advice
        raise DataError(f"there is no dataset '{name}' below {store.root}; {hint}") from None
    path = store.text(manifest)
    if not path.is_file() or path.stat().st_size != manifest.size_bytes:
        raise DataError(f"dataset '{name}' is damaged: {path} is missing or not {manifest.size_bytes} bytes long")
    return manifest, path


def find_file(source: str, data_dir: Path) -> Path:
    """Return the path of a file below `data_dir`, or of any file if `source` is absolute.

    Raises DataError if the file does not exist, or if a relative path leads outside `data_dir`.
    """
    require_valid_source(source)
    path = _resolve(source, data_dir)
    if not source.startswith(("/", "~")):
        _check_inside(source, data_dir)
    if not _is_file(path):
        raise DataError(f"no such corpus: {path}; give a file below the data folder {data_dir.absolute()}")
    return path


def require_inside(config: DataConfig, data_dir: Path) -> None:
    """Raise DataError if a file of a corpus, with links resolved, is outside `data_dir`.

    Every job calls this before it reads a corpus.
    """
    for corpus in config.corpora():
        for source in (corpus.source, corpus.validation_source):
            if source is not None and is_file_name(source):
                _check_inside(source, data_dir)


def resolve_local_files(config: DataConfig, data_dir: Path) -> DataConfig:
    """Return the configuration with absolute paths for corpora that are files outside `data_dir`.

    A path that exists below `data_dir` is unchanged. Another path is made absolute if the file exists relative to the
    working directory.

    Commands that a user runs in a terminal call this.
    """

    def resolve(source: str | None) -> str | None:
        if source is None or not is_file_name(source):
            return source
        below = _resolve(source, data_dir)
        if _is_file(below) and below.is_relative_to(data_dir.resolve()):
            return source
        path = _resolve(source, Path.cwd())
        return str(path) if _is_file(path) else source

    def resolved(section: S) -> S:
        names = {"source": resolve(section.source), "validation_source": resolve(section.validation_source)}
        return section.model_copy(update=names)

    return resolved(config).model_copy(update={"sources": tuple(map(resolved, config.sources))})


def require_valid_source(source: str) -> None:
    """Raise DataError if `source` is not a valid name of any corpus."""
    if (refusal := source_problem(source)) is not None:
        raise DataError(refusal)


def require_hub_name(name: str) -> None:
    """Raise DataError if `name` is not of the form owner/name, or if a local folder has this name."""
    require_valid_source(name)
    # Hugging Face's library would read the local folder instead of the dataset, including any file in it.
    if Path(name).exists():
        raise DataError(f"{name}: a local folder has the name of this Hugging Face dataset; rename the folder")


def _resolve(source: str, data_dir: Path) -> Path:
    """Return the absolute path with links resolved.

    Raises DataError if the system cannot resolve it, for example because it contains a loop of links, a NUL character
    or the home of an unknown user.
    """
    try:
        return (data_dir / Path(source).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{shown(source)}: this path cannot be resolved ({error}); use another path to the file"
        ) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # raised if the name is too long, or a folder cannot be entered
        return False


def _check_inside(source: str, data_dir: Path) -> None:
    if not _resolve(source, data_dir).is_relative_to(data_dir.resolve()):
        raise DataError(
            f"{source} leads outside the data folder {data_dir.absolute()}; "
            "copy the file into this folder and use the path of the copy"
        )
