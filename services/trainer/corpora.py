"""Dataset jobs: a corpus tokenised into its cache, and what that gave noted beside an uploaded dataset.

The cache is the one that trainings open, locks included, so a training that comes first or at the same time does the
same work once. An attempt that was interrupted leaves nothing and the next begins anew.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from common.config import DataConfig
from common.datasets import DatasetStore, TokenRecord, is_dataset_name
from common.errors import DataError, NotFoundError
from common.jobs.payloads import DatasetPayload
from common.training.disk_wait import StoppedWaiting, write_when_disk_has_space
from common.training.hooks import Outcome, TrainingHooks, outcome_of
from common.training.loading import StoppedWhileLoading, load_corpus


def tokenise(payload: DatasetPayload, hooks: TrainingHooks, *, data_dir: Path) -> Outcome:
    """Build the token cache of `payload.data`; DataError when the dataset is not the one that was asked for."""
    store, name = DatasetStore(data_dir), payload.data.source
    if payload.sha256 is not None:
        _require_same(store, name, payload.sha256)
    hooks.report_progress(0, 1)

    def progress(done: int, total: int | None) -> None:
        if total is not None:
            # Documents that were too long count as several.
            hooks.report_progress(min(done, total), total)

    try:
        corpus = load_corpus(payload.data, data_dir, hooks, phase="tokenising", progress=progress)
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    documents = len(corpus.documents("train")) + len(corpus.documents("validation"))
    # Other settings make other tokens; what the dataset is said to hold are those of the defaults.
    if payload.sha256 is not None and is_dataset_name(name) and payload.data == DataConfig(source=name):
        record = TokenRecord(
            sha256=payload.sha256,
            train_tokens=len(corpus.train),
            validation_tokens=len(corpus.validation),
            documents=documents,
            digest=corpus.digest,
            created_at=datetime.now(UTC),
        )
        hooks.wait_while_suspended()
        try:
            write_when_disk_has_space(hooks, partial(store.record_tokens, name, record), data=True)
        except StoppedWaiting as stop:
            return outcome_of(stop.request)
    hooks.report_progress(documents, documents)
    return Outcome.COMPLETED


def _require_same(store: DatasetStore, name: str, sha256: str) -> None:
    try:
        found = store.find(name)
    except NotFoundError as error:
        raise DataError(
            f"{error.message} below {store.root}; the worker needs the data folder of the api (TIDAL_DATA_DIR)"
        ) from None
    if found.sha256 != sha256:
        raise DataError(f"dataset '{name}' was replaced since this job was submitted; submit it again")
