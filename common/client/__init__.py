"""The typed Python client of the api, for the CLI, the MCP server and scripts. Loads neither torch nor the rest."""

from common.client.client import Client
from common.client.dataset_models import Dataset, DatasetUpload
from common.client.local_instance import LocalInstance, instance_folder, read_instance
from common.client.models import (
    Analysis,
    AnalysisResult,
    Checkpoint,
    Experiment,
    Generation,
    Job,
    JobEvent,
    LogPage,
    Metrics,
    Progress,
    Queue,
    Report,
)
from common.client.sse import Event

__all__ = [
    "Analysis",
    "AnalysisResult",
    "Checkpoint",
    "Client",
    "Dataset",
    "DatasetUpload",
    "Event",
    "Experiment",
    "Generation",
    "Job",
    "JobEvent",
    "LocalInstance",
    "LogPage",
    "Metrics",
    "Progress",
    "Queue",
    "Report",
    "instance_folder",
    "read_instance",
]
