"""Creates jobs that ended some days ago, with the files that such jobs leave in their experiment folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.artifacts import ArtifactStore
from tests.integration.jobs.job_queue import JobQueue
from tidal_client.vocabulary import JobStatus


@pytest.fixture
def store(job_queue: JobQueue) -> ArtifactStore:
    return ArtifactStore(job_queue.settings.experiments_dir)


def furnish(job_queue: JobQueue, store: ArtifactStore, job_id: str) -> Path:
    """Write the files that a training leaves, and return the folder. Its logs and metrics have 300 bytes in total."""
    folder = store.experiment(job_queue.job(job_id).experiment_id)
    for name in (
        "logs/1.log",
        "metrics/metrics-1-0.jsonl",
        "metrics/metrics.index",
        "config.yaml",
        "model.safetensors",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    checkpoint = folder / "checkpoints" / "step-000000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    return folder


def names(folder: Path) -> set[str]:
    """Return the names of the entries of `folder`."""
    return {path.name for path in folder.iterdir()}


def ended(job_queue: JobQueue, store: ArtifactStore, status: JobStatus, days: float) -> tuple[str, Path]:
    """Create a job that ended with `status` the given number of `days` ago; return its id and its experiment folder."""
    job_id = job_queue.bring(status)
    age(job_queue, job_id, days)
    return job_id, furnish(job_queue, store, job_id)


def age(job_queue: JobQueue, job_id: str, days: float) -> None:
    """Set the end of a job to `days` ago."""
    job_queue.sql(
        "UPDATE jobs SET finished_at = now() - make_interval(secs => :s) WHERE id = :id", s=days * 86400, id=job_id
    )


ALL = {"logs", "metrics", "config.yaml", "model.safetensors", "checkpoints"}
"""The names of the entries that `furnish` creates in the experiment folder."""
