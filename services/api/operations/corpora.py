"""Which corpora a job may name: the built-in one, a data set of the hub, a file below the workers' data folder.

Whether the file is there only the worker can tell. Leaves out: reading it (`common.data`).
"""

from __future__ import annotations

from pathlib import PurePosixPath

from common.config import DataConfig
from common.errors import InvalidInputError


def check_corpus(data: DataConfig, *, location: str) -> None:
    """InvalidInputError when a source of this `data` section leads outside the data folder."""
    for field, source in (("source", data.source), ("validation_source", data.validation_source)):
        if source is None:
            continue
        if source.startswith(("/", "~")) or ".." in PurePosixPath(source).parts:
            message = (
                f"{source} leads outside the data folder; put the file below TIDAL_DATA_DIR and name it from there, "
                "or use builtin:stories"
            )
            place = f"{location}.{field}"
            raise InvalidInputError(f"{place}: {message}", errors=[{"location": place, "message": message}])
