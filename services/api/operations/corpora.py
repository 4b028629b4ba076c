"""Checks the corpora that a job names: the built-in corpus, an uploaded dataset, a Hugging Face dataset, or a file
below the data folder.

The api checks that an uploaded dataset exists; only the worker can check a file. `common.data` reads corpora.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from common.config import DataConfig
from common.datasets import DatasetStore, file_name_problem, is_dataset_name, is_hub_name, nearest, source_problem
from common.datasets.names import FORMS
from common.errors import InvalidInputError
from common.jobs.sql import lock_dataset


def check_corpus(data: DataConfig, datasets: DatasetStore, *, location: str) -> None:
    """Check the sources of a `data` section.

    Raises InvalidInputError when a source leads outside the data folder or names a dataset that does not exist.
    """
    for field, source, is_split in _sources(data):
        if source.startswith(("/", "~")) or ".." in PurePosixPath(source).parts:
            message = (
                f"{source} leads outside the data folder; put the file below TIDAL_DATA_DIR and give "
                "its path relative to that folder, or use builtin:stories"
            )
            raise InvalidInputError.at(f"{location}.{field}", message)
        if not is_split and (problem := source_problem(source)):
            raise InvalidInputError.at(f"{location}.{field}", problem)
    _require_datasets(data, datasets, location)


def hold_datasets(session: Session, data: DataConfig, datasets: DatasetStore, *, location: str) -> None:
    """Lock the datasets that `data` names, so that they cannot be deleted until the transaction ends.

    A dataset may have been deleted since `check_corpus`. Therefore this function checks again after it has acquired the
    locks. Raises InvalidInputError if a dataset no longer exists.
    """
    for name in sorted(set(_datasets(data).values())):
        lock_dataset(session, name, shared=True)
    _require_datasets(data, datasets, location)


def _require_datasets(data: DataConfig, datasets: DatasetStore, location: str) -> None:
    for field, name in _datasets(data).items():
        if not datasets.has(name):
            like = nearest(name, datasets.names())
            other = file_name_problem(name) or f"upload it first, or name {FORMS}"
            meant = f"did you mean '{like}'?" if like else other
            raise InvalidInputError.at(f"{location}.{field}", f"there is no dataset '{name}'; {meant}")


def _datasets(data: DataConfig) -> dict[str, str]:
    """Return the names of uploaded datasets as {field of `data`: name}."""
    return {field: source for field, source, is_split in _sources(data) if not is_split and is_dataset_name(source)}


def _sources(data: DataConfig) -> Iterator[tuple[str, str, bool]]:
    """Yield (field of `data`, name, is a split) of each source and validation source.

    The validation source of a Hugging Face dataset is the name of a split, which only the hub can check.
    """
    for number, corpus in enumerate(data.corpora()):
        prefix = f"sources.{number}." if data.sources else ""
        yield f"{prefix}source", corpus.source, False
        if corpus.validation_source is not None:
            yield f"{prefix}validation_source", corpus.validation_source, is_hub_name(corpus.source)
