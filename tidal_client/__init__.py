"""The Python client of Tidal: typed calls on its API, and the words, reply types and errors that both sides share.

    from tidal_client import Client

    with Client("http://127.0.0.1:4400", token) as client: ...

It stands alone: it needs httpx, httpx-sse and pydantic, and nothing else of Tidal. Every process of Tidal imports
`vocabulary`, `errors` and `wire`, which load without httpx; so the names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .dataset_models import Dataset, DatasetUpload
    from .local_instance import LocalInstance, instance_folder, read_instance
    from .models import (
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
    from .sse import Event

_PLACES = {
    "Analysis": "models",
    "AnalysisResult": "models",
    "Checkpoint": "models",
    "Client": "client",
    "Dataset": "dataset_models",
    "DatasetUpload": "dataset_models",
    "Event": "sse",
    "Experiment": "models",
    "Generation": "models",
    "Job": "models",
    "JobEvent": "models",
    "LocalInstance": "local_instance",
    "LogPage": "models",
    "Metrics": "models",
    "Progress": "models",
    "Queue": "models",
    "Report": "models",
    "instance_folder": "local_instance",
    "read_instance": "local_instance",
}
"""Where each public name is defined."""

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


def __getattr__(name: str) -> Any:
    """The public name, from the module that defines it."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
