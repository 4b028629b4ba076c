"""A dataset job records the statistics of the text, leaves no files after a stop, and rejects a replaced dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.artifacts import ArtifactStore
from common.child.protocol import ChildJob
from common.data import load_tokenizer
from common.datasets import DatasetIntake, DatasetManifest, DatasetStore
from common.errors import DataError
from common.training.hooks import NullHooks, Outcome, StopRequest
from services.trainer.handlers import HANDLERS, JobPaths

TALES = [f"The {n}th tale of the tide." for n in range(200)]


class Hooks(NullHooks):
    """Hooks that record progress and return a given stop request."""

    def __init__(self, request_: StopRequest | None = None) -> None:
        self.request = request_
        self.progress: list[tuple[int, int]] = []

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        self.progress.append((step, total_steps))

    def requested_stop(self) -> StopRequest | None:
        return self.request


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(tmp_path / "data")


def upload(store: DatasetStore, texts: list[str] = TALES) -> DatasetManifest:
    with DatasetIntake(store, "tales", "txt", limit_bytes=10**6) as intake:
        intake.write("<|endoftext|>".join(texts).encode())
        return intake.publish()[0]


def run(tmp_path: Path, hooks: Hooks, sha256: str | None, **data: Any) -> Outcome:
    payload = {"data": {"source": "tales", **data}, "sha256": sha256}
    job = ChildJob(job_id="job_1", attempt=1, job_type="dataset", experiment_id="made", payload=payload)
    return HANDLERS["dataset"](job, JobPaths(ArtifactStore(tmp_path / "experiments"), tmp_path / "data"), hooks)


def test_the_figures_are_those_of_the_text(store: DatasetStore, tmp_path: Path) -> None:
    manifest, hooks = upload(store), Hooks()
    assert run(tmp_path, hooks, manifest.sha256) is Outcome.COMPLETED
    record = store.tokens(manifest)
    assert record is not None
    expected = sum(len(tokens) + 1 for tokens in load_tokenizer().encode_batch(TALES))
    assert (record.train_tokens + record.validation_tokens, record.documents) == (expected, 200)
    assert hooks.progress[0] == (0, 1) and hooks.progress[-1] == (200, 200)
    metadata = json.loads((tmp_path / "experiments/made/metadata.json").read_text())
    assert (metadata["type"], metadata["source_checkpoint"]) == ("dataset", None)


def test_other_settings_build_their_tokens_and_claim_nothing_about_the_dataset(
    store: DatasetStore, tmp_path: Path
) -> None:
    manifest = upload(store)
    assert run(tmp_path, Hooks(), manifest.sha256, max_documents=50) is Outcome.COMPLETED
    assert store.tokens(manifest) is None
    assert len(list((store.data_dir / "cache").glob("*/header.json"))) == 1


def test_a_replaced_dataset_is_reported(store: DatasetStore, tmp_path: Path) -> None:
    first = upload(store)
    store.delete("tales")
    with pytest.raises(DataError, match="TIDAL_DATA_DIR"):
        run(tmp_path, Hooks(), first.sha256)
    upload(store, [*TALES, "One more."])
    with pytest.raises(DataError, match="was replaced"):
        run(tmp_path, Hooks(), first.sha256)


@pytest.mark.parametrize(
    ("request_", "outcome"), [(StopRequest.STOP, Outcome.STOPPED), (StopRequest.DRAIN, Outcome.DRAINED)]
)
def test_a_stop_request_is_obeyed(store: DatasetStore, tmp_path: Path, request_: StopRequest, outcome: Outcome) -> None:
    manifest = upload(store)
    assert run(tmp_path, Hooks(request_), manifest.sha256) is outcome
    assert store.tokens(manifest) is None
