"""Dataset jobs: tokenise a corpus into the token cache, and store the number of tokens with an uploaded dataset.

Trainings use the same cache under the same lock. Therefore a corpus is tokenised only once, even if a training starts
at the same time. An interrupted attempt leaves no files, and the next one starts from the beginning.
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


def tokenise_corpus(payload: DatasetPayload, hooks: TrainingHooks, *, data_dir: Path) -> Outcome:
    """Build the token cache of `payload.data`.

    Raises DataError if the dataset was replaced since the job was submitted.
    """
    store, name = DatasetStore(data_dir), payload.data.source
    if payload.sha256 is not None and name is not None:
        _require_same(store, name, payload.sha256)
    hooks.report_progress(0, 1)

    def progress(done: int, total: int | None) -> None:
        if total is not None:
            # A long document is split, and every part counts, so `done` may exceed `total`.
            hooks.report_progress(min(done, total), total)

    try:
        corpus = load_corpus(payload.data, data_dir, hooks, phase="tokenising", progress=progress)
    except StoppedWhileLoading as stop:
        return outcome_of(stop.request)
    documents = len(corpus.documents("train")) + len(corpus.documents("validation"))
    # The token counts are stored only for the default settings, because other settings lead to other tokens.
    is_default = name is not None and is_dataset_name(name) and payload.data == DataConfig(source=name)
    if payload.sha256 is not None and name is not None and is_default:
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
            f"{error.message} below {store.root}; the worker and the api must use the same data folder (TIDAL_DATA_DIR)"
        ) from None
    if found.sha256 != sha256:
        raise DataError(f"dataset '{name}' was replaced since this job was submitted; submit it again")
