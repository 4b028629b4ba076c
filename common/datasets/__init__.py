"""Uploaded text: `<data_dir>/datasets/<name>/`, a folder per dataset with the text and a manifest.

The folder is the whole truth, so trainers on the same store find a dataset by its name with no database
(docs/decisions/0063). Above the torch line: the api writes datasets, `common.data` reads them. Leaves out: jobs.
"""

from common.datasets.intake import Intake
from common.datasets.kinds import SUFFIXES, refusal_of_name
from common.datasets.manifest import FORMATS, Manifest, TokenRecord
from common.datasets.names import (
    BUILTIN_STORIES,
    check_name,
    is_dataset_name,
    is_file_name,
    is_hub_name,
    nearest,
    refusal_of_source,
    shown,
    split_name,
    suggest_name,
)
from common.datasets.store import DatasetStore

__all__ = [
    "BUILTIN_STORIES",
    "FORMATS",
    "SUFFIXES",
    "DatasetStore",
    "Intake",
    "Manifest",
    "TokenRecord",
    "check_name",
    "is_dataset_name",
    "is_file_name",
    "is_hub_name",
    "nearest",
    "refusal_of_name",
    "refusal_of_source",
    "shown",
    "split_name",
    "suggest_name",
]
