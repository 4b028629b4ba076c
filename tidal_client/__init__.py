"""The Python client of Tidal: typed API calls, and the vocabulary, reply types and errors that it shares with the api.

    from tidal_client import Client

    with Client() as client: ...  # or: async with AsyncClient() as client: ...

The package depends only on httpx, httpx-sse, pydantic and psutil, and on no other package of Tidal. It is also a
distribution of its own (`pip install ./tidal_client`). Processes of Tidal that import only `vocabulary`, `errors` and
`wire` do not need httpx, so the names in `_EXPORTS` are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asynchronous.client import AsyncClient
    from .errors import (
        ConflictError,
        ForbiddenError,
        InvalidInputError,
        NotFoundError,
        RateLimitedError,
        TidalError,
        UnauthorizedError,
        UnavailableError,
    )
    from .frames import experiments_frame, metrics_frame, samples_frame
    from .local_instance import LocalInstance, instance_folder, read_instance
    from .server import Server, find_server
    from .sse import StreamEvent
    from .synchronous.client import Client
    from .synchronous.streams import read_events
    from .wire.access_token import AccessTokenCreated as NewAccessToken
    from .wire.access_token import AccessTokenReply as AccessToken
    from .wire.analysis import AnalysisResult, AnalysisSummary
    from .wire.analysis import SavedAnalysis as Analysis
    from .wire.audit import AuditEntryReply as AuditEntry
    from .wire.chat import ChatChunk, ChatCompletion
    from .wire.checkpoint import CheckpointGroup
    from .wire.checkpoint import CheckpointReply as Checkpoint
    from .wire.completion import Completion, Model
    from .wire.config_file import ConfigFile, ConfigFileContent
    from .wire.dataset import DatasetDetail as Dataset
    from .wire.dataset import DatasetReply
    from .wire.dataset import DatasetUploaded as DatasetUpload
    from .wire.experiment import ConfigReply as ExperimentConfig
    from .wire.experiment import ExperimentDetail as Experiment
    from .wire.experiment import ExperimentReply, ExperimentStatus, Sample, SampleHistory
    from .wire.generation import GenerateReply as Generation
    from .wire.health import Alive, Ready
    from .wire.job import JobDetail as Job
    from .wire.job import JobEventReply as JobEvent
    from .wire.job import JobPrediction, JobReply, LogLine, LogPage
    from .wire.job import JobProgress as Progress
    from .wire.metrics import MetricsReply as Metrics
    from .wire.queue import QueueReply as Queue
    from .wire.report import PatternReply as ReportPattern
    from .wire.report import ReportPart, ReportSummary
    from .wire.report import ReportReply as Report
    from .wire.session import Session
    from .wire.storage import Storage
    from .wire.vocabulary import VocabularyDetail as Vocabulary

_EXPORTS = {
    "AccessToken": (".wire.access_token", "AccessTokenReply"),
    "AuditEntry": (".wire.audit", "AuditEntryReply"),
    "NewAccessToken": (".wire.access_token", "AccessTokenCreated"),
    "Alive": (".wire.health", "Alive"),
    "Analysis": (".wire.analysis", "SavedAnalysis"),
    "AnalysisResult": (".wire.analysis", "AnalysisResult"),
    "AnalysisSummary": (".wire.analysis", "AnalysisSummary"),
    "AsyncClient": (".asynchronous.client", "AsyncClient"),
    "ChatChunk": (".wire.chat", "ChatChunk"),
    "ChatCompletion": (".wire.chat", "ChatCompletion"),
    "Checkpoint": (".wire.checkpoint", "CheckpointReply"),
    "CheckpointGroup": (".wire.checkpoint", "CheckpointGroup"),
    "Client": (".synchronous.client", "Client"),
    "Completion": (".wire.completion", "Completion"),
    "ConfigFile": (".wire.config_file", "ConfigFile"),
    "ConfigFileContent": (".wire.config_file", "ConfigFileContent"),
    "ConflictError": (".errors", "ConflictError"),
    "Dataset": (".wire.dataset", "DatasetDetail"),
    "DatasetReply": (".wire.dataset", "DatasetReply"),
    "DatasetUpload": (".wire.dataset", "DatasetUploaded"),
    "Experiment": (".wire.experiment", "ExperimentDetail"),
    "ExperimentConfig": (".wire.experiment", "ConfigReply"),
    "ExperimentReply": (".wire.experiment", "ExperimentReply"),
    "ExperimentStatus": (".wire.experiment", "ExperimentStatus"),
    "ForbiddenError": (".errors", "ForbiddenError"),
    "Generation": (".wire.generation", "GenerateReply"),
    "InvalidInputError": (".errors", "InvalidInputError"),
    "Job": (".wire.job", "JobDetail"),
    "JobEvent": (".wire.job", "JobEventReply"),
    "JobPrediction": (".wire.job", "JobPrediction"),
    "JobReply": (".wire.job", "JobReply"),
    "LocalInstance": (".local_instance", "LocalInstance"),
    "LogLine": (".wire.job", "LogLine"),
    "LogPage": (".wire.job", "LogPage"),
    "Metrics": (".wire.metrics", "MetricsReply"),
    "Model": (".wire.completion", "Model"),
    "NotFoundError": (".errors", "NotFoundError"),
    "Progress": (".wire.job", "JobProgress"),
    "Queue": (".wire.queue", "QueueReply"),
    "RateLimitedError": (".errors", "RateLimitedError"),
    "Ready": (".wire.health", "Ready"),
    "Report": (".wire.report", "ReportReply"),
    "ReportPart": (".wire.report", "ReportPart"),
    "ReportPattern": (".wire.report", "PatternReply"),
    "ReportSummary": (".wire.report", "ReportSummary"),
    "Sample": (".wire.experiment", "Sample"),
    "SampleHistory": (".wire.experiment", "SampleHistory"),
    "Server": (".server", "Server"),
    "Session": (".wire.session", "Session"),
    "Storage": (".wire.storage", "Storage"),
    "StreamEvent": (".sse", "StreamEvent"),
    "TidalError": (".errors", "TidalError"),
    "UnauthorizedError": (".errors", "UnauthorizedError"),
    "UnavailableError": (".errors", "UnavailableError"),
    "Vocabulary": (".wire.vocabulary", "VocabularyDetail"),
    "experiments_frame": (".frames", "experiments_frame"),
    "find_server": (".server", "find_server"),
    "instance_folder": (".local_instance", "instance_folder"),
    "metrics_frame": (".frames", "metrics_frame"),
    "read_events": (".synchronous.streams", "read_events"),
    "read_instance": (".local_instance", "read_instance"),
    "samples_frame": (".frames", "samples_frame"),
}
"""{public name: (module, name in the module)}. A noun names the type that the `Client` method of the same name returns:
`Client.job` returns a `Job`."""

__all__ = [
    "AccessToken",
    "Alive",
    "Analysis",
    "AnalysisResult",
    "AnalysisSummary",
    "AsyncClient",
    "AuditEntry",
    "ChatChunk",
    "ChatCompletion",
    "Checkpoint",
    "CheckpointGroup",
    "Client",
    "Completion",
    "ConfigFile",
    "ConfigFileContent",
    "ConflictError",
    "Dataset",
    "DatasetReply",
    "DatasetUpload",
    "Experiment",
    "ExperimentConfig",
    "ExperimentReply",
    "ExperimentStatus",
    "ForbiddenError",
    "Generation",
    "InvalidInputError",
    "Job",
    "JobEvent",
    "JobPrediction",
    "JobReply",
    "LocalInstance",
    "LogLine",
    "LogPage",
    "Metrics",
    "Model",
    "NewAccessToken",
    "NotFoundError",
    "Progress",
    "Queue",
    "RateLimitedError",
    "Ready",
    "Report",
    "ReportPart",
    "ReportPattern",
    "ReportSummary",
    "Sample",
    "SampleHistory",
    "Server",
    "Session",
    "Storage",
    "StreamEvent",
    "TidalError",
    "UnauthorizedError",
    "UnavailableError",
    "Vocabulary",
    "experiments_frame",
    "find_server",
    "instance_folder",
    "metrics_frame",
    "read_events",
    "read_instance",
    "samples_frame",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines a public name, and return the object."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, defined_name = _EXPORTS[name]
    return getattr(import_module(module, __name__), defined_name)
