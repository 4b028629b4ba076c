"""Creates jobs that ended some days ago, with the files that such jobs leave in their experiment folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.artifacts import ArtifactStore
from tests.integration.jobs.desk import Desk
from tidal_client.vocabulary import JobStatus


@pytest.fixture
def store(desk: Desk) -> ArtifactStore:
    return ArtifactStore(desk.settings.experiments_dir)


def furnish(desk: Desk, store: ArtifactStore, job_id: str) -> Path:
    """Write the files that a training leaves, and return the folder. Its logs and metrics have 300 bytes in total."""
    folder = store.experiment(desk.job(job_id).experiment_id)
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


def ended(desk: Desk, store: ArtifactStore, status: JobStatus, days: float) -> tuple[str, Path]:
    """Create a job that ended with `status` the given number of `days` ago; return its id and its experiment folder."""
    job_id = desk.bring(status)
    age(desk, job_id, days)
    return job_id, furnish(desk, store, job_id)


def age(desk: Desk, job_id: str, days: float) -> None:
    """Set the end of a job to `days` ago."""
    desk.sql(
        "UPDATE jobs SET finished_at = now() - make_interval(secs => :s) WHERE id = :id", s=days * 86400, id=job_id
    )


ALL = {"logs", "metrics", "config.yaml", "model.safetensors", "checkpoints"}
"""The names of the entries that `furnish` creates in the experiment folder."""
