"""Uploaded text: `<data_dir>/datasets/<name>/`, a folder per dataset with the text and a manifest.

The folder is the whole truth, so trainers on the same store find a dataset by its name with no database
(docs/decisions/0063). Above the torch line: the api writes datasets, `common.data` reads them. Leaves out: jobs.
"""

from common.datasets.intake import Intake
from common.datasets.manifest import FORMATS, Manifest, TokenRecord
from common.datasets.names import SUFFIXES, check_name, is_dataset_name, nearest, split_name
from common.datasets.store import DatasetStore

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "DatasetStore",
    "Intake",
    "Manifest",
    "TokenRecord",
    "check_name",
    "is_dataset_name",
    "nearest",
    "split_name",
]
