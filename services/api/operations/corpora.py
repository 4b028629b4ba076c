"""Which corpora a job may name: the built-in one, an uploaded dataset, a data set of the hub, a file below the data
folder.

Whether a file is there only the worker can tell; datasets came through here, so their names are checked. Leaves out:
reading (`common.data`), uploads (`datasets`).
"""

from __future__ import annotations

from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from common.config import DataConfig
from common.datasets import SUFFIXES, DatasetStore, is_dataset_name, nearest
from common.errors import InvalidInputError
from common.jobs.locks import lock_dataset

BUILTIN = "builtin:"


def check_corpus(data: DataConfig, datasets: DatasetStore, *, location: str) -> None:
    """InvalidInputError when a source of this `data` section leads outside the data folder or names no dataset."""
    for field, source in (("source", data.source), ("validation_source", data.validation_source)):
        if source is None:
            continue
        if source.startswith(("/", "~")) or ".." in PurePosixPath(source).parts:
            message = (
                f"{source} leads outside the data folder; put the file below TIDAL_DATA_DIR and name it from there, "
                "or use builtin:stories"
            )
            raise _invalid(f"{location}.{field}", message)
    for field, name in _datasets(data).items():
        if not datasets.has(name):
            like = nearest(name, datasets.names())
            meant = (
                f"did you mean '{like}'?"
                if like
                else f"upload it first, or name builtin:stories, a {', '.join(SUFFIXES)} file or owner/name of the hub"
            )
            raise _invalid(f"{location}.{field}", f"there is no dataset '{name}'; {meant}")


def keep_datasets(session: Session, data: DataConfig) -> None:
    """Until the transaction ends no dataset that `data` names is deleted; ask before looking whether it is there."""
    for name in sorted(set(_datasets(data).values())):
        lock_dataset(session, name, shared=True)


def _datasets(data: DataConfig) -> dict[str, str]:
    """Names of datasets by field. The validation part of a data set on the hub is a split of it."""
    source, validation = data.source, data.validation_source
    found = {"source": source} if is_dataset_name(source) else {}
    on_the_hub = not (source.startswith(BUILTIN) or source.lower().endswith(SUFFIXES) or found)
    if validation is not None and not on_the_hub and is_dataset_name(validation):
        found["validation_source"] = validation
    return found


def _invalid(place: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{place}: {message}", errors=[{"location": place, "message": message}])
