"""The Python client of Tidal: typed API calls, and the vocabulary, reply types and errors that it shares with the api.

    from tidal_client import Client

    with Client("http://127.0.0.1:4400", token) as client: ...

The package depends only on httpx, httpx-sse and pydantic, and on no other package of Tidal. Processes of Tidal that
import only `vocabulary`, `errors` and `wire` do not need httpx, so the names in `_EXPORTS` are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .local_instance import LocalInstance, instance_folder, read_instance
    from .sse import StreamEvent
    from .wire.analysis import AnalysisResult, AnalysisSummary
    from .wire.analysis import SavedAnalysis as Analysis
    from .wire.checkpoint import CheckpointReply as Checkpoint
    from .wire.dataset import DatasetDetail as Dataset
    from .wire.dataset import DatasetReply
    from .wire.dataset import DatasetUploaded as DatasetUpload
    from .wire.experiment import ExperimentDetail as Experiment
    from .wire.experiment import SampleHistory
    from .wire.generation import GenerateReply as Generation
    from .wire.job import JobDetail as Job
    from .wire.job import JobEventReply as JobEvent
    from .wire.job import JobProgress as Progress
    from .wire.job import JobReply, LogPage
    from .wire.metrics import MetricsReply as Metrics
    from .wire.queue import QueueReply as Queue
    from .wire.report import ReportReply as Report
    from .wire.report import ReportSummary
    from .wire.vocabulary import VocabularyDetail as Vocabulary

_EXPORTS = {
    "DatasetReply": (".wire.dataset", "DatasetReply"),
    "ReportSummary": (".wire.report", "ReportSummary"),
    "AnalysisSummary": (".wire.analysis", "AnalysisSummary"),
    "JobReply": (".wire.job", "JobReply"),
    "Analysis": (".wire.analysis", "SavedAnalysis"),
    "AnalysisResult": (".wire.analysis", "AnalysisResult"),
    "Checkpoint": (".wire.checkpoint", "CheckpointReply"),
    "Client": (".client", "Client"),
    "Dataset": (".wire.dataset", "DatasetDetail"),
    "DatasetUpload": (".wire.dataset", "DatasetUploaded"),
    "SampleHistory": (".wire.experiment", "SampleHistory"),
    "StreamEvent": (".sse", "StreamEvent"),
    "Experiment": (".wire.experiment", "ExperimentDetail"),
    "Generation": (".wire.generation", "GenerateReply"),
    "Job": (".wire.job", "JobDetail"),
    "JobEvent": (".wire.job", "JobEventReply"),
    "LocalInstance": (".local_instance", "LocalInstance"),
    "LogPage": (".wire.job", "LogPage"),
    "Metrics": (".wire.metrics", "MetricsReply"),
    "Progress": (".wire.job", "JobProgress"),
    "Queue": (".wire.queue", "QueueReply"),
    "Report": (".wire.report", "ReportReply"),
    "Vocabulary": (".wire.vocabulary", "VocabularyDetail"),
    "instance_folder": (".local_instance", "instance_folder"),
    "read_instance": (".local_instance", "read_instance"),
}
"""{public name: (module, name in the module)}. A noun names the type that the `Client` method of the same name returns:
`Client.job` returns a `Job`."""

__all__ = [
    "Analysis",
    "AnalysisResult",
    "AnalysisSummary",
    "Checkpoint",
    "Client",
    "Dataset",
    "DatasetReply",
    "DatasetUpload",
    "Experiment",
    "Generation",
    "Job",
    "JobEvent",
    "JobReply",
    "LocalInstance",
    "LogPage",
    "Metrics",
    "Progress",
    "Queue",
    "Report",
    "ReportSummary",
    "SampleHistory",
    "StreamEvent",
    "Vocabulary",
    "instance_folder",
    "read_instance",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, and return the object."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, defined_name = _EXPORTS[name]
    return getattr(import_module(module, __name__), defined_name)
