"""Stores uploaded datasets as folders `<data_dir>/datasets/<name>/` that contain the text and a manifest.

The folder contains all that is known about a dataset. Therefore trainers find it by its name without a database
(docs/decisions/0063). The package does not import torch, because the api writes datasets; `common.data` reads them.
Jobs that tokenise datasets are in `services.trainer`.
"""

from common.datasets.intake import DatasetIntake
from common.datasets.kinds import SUFFIXES, file_name_problem
from common.datasets.manifest import FORMATS, DatasetManifest, TokenRecord
from common.datasets.names import (
    BUILTIN_STORIES,
    check_name,
    is_dataset_name,
    is_file_name,
    is_hub_name,
    nearest,
    shown,
    source_problem,
    split_name,
    suggest_name,
)
from common.datasets.store import DatasetStore

__all__ = [
    "BUILTIN_STORIES",
    "FORMATS",
    "SUFFIXES",
    "DatasetIntake",
    "DatasetManifest",
    "DatasetStore",
    "TokenRecord",
    "check_name",
    "file_name_problem",
    "is_dataset_name",
    "is_file_name",
    "is_hub_name",
    "nearest",
    "shown",
    "source_problem",
    "split_name",
    "suggest_name",
]
