"""Experiments: database rows with their newest job, and files below `<experiments_dir>/<id>/`."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError
from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore, VocabularyFacts, checkpoint_vocabulary, vocabulary_facts
from common.config.tokenizers import VOCABULARY_FILE
from common.config.yaml_text import parse_yaml
from common.db import Experiment, Job, JobEvent
from common.disk import size_of
from common.errors import ConfigError, NotFoundError, StorageError
from common.metrics import metric_names
from services.api.operations.job_view import error_of, progress_of
from services.api.paging import newest_page
from tidal_client.vocabulary import IMPORTED, ExperimentType
from tidal_client.wire.base import extend_reply
from tidal_client.wire.experiment import (
    ConfigReply,
    ExperimentDetail,
    ExperimentList,
    ExperimentReply,
    ExperimentStatus,
    ResultReply,
    Sample,
    SampleHistory,
    SampleList,
    SampleRow,
    TagList,
)
from tidal_client.wire.vocabulary import VocabularyDetail, VocabularyReply

EVALUATION_FILE = "evaluation_results/evaluation_results.json"
SAMPLES_FILE = "evaluation_results/samples.jsonl"
ABLATION_FILE = "ablation_results.json"
HEADROOM_FILE = "headroom_results.json"
ANALYSIS_FILE = "analysis_results.json"
CONTROLLER_TYPES = (ExperimentType.RL, ExperimentType.ABLATION, ExperimentType.HEADROOM)
"""Types of experiments whose jobs have the configuration of a controller."""


def experiments_page(
    session: Session,
    *,
    limit: int,
    cursor: str | None,
    kinds: Collection[str] | None = None,
    status: str | None = None,
    tag: str | None = None,
    search: str | None = None,
) -> ExperimentList:
    """Return a page of experiments, newest first.

    Without `kinds`, the page contains experiments of all types except dataset. An experiment of type dataset contains
    only the log of a dataset job; the list of datasets shows that job.
    """
    query = _with_newest_job()
    query = query.where(Experiment.type.in_(kinds) if kinds else Experiment.type != ExperimentType.DATASET)
    if status is not None:
        query = query.where(Job.status == status)
    if tag is not None:
        query = query.where(Experiment.tags.bool_op("@>")([tag]))
    if search:
        query = query.where(
            or_(Experiment.id.icontains(search, autoescape=True), Experiment.name.icontains(search, autoescape=True))
        )
    page, following = newest_page(session, query, Experiment.created_at, Experiment.id, limit=limit, cursor=cursor)
    return ExperimentList(experiments=[_reply(experiment, job) for experiment, job in page], next_cursor=following)


def experiment_tags(session: Session) -> TagList:
    """Return the tags of all experiments whose type is not dataset."""
    found = select(func.unnest(Experiment.tags)).where(Experiment.type != ExperimentType.DATASET).distinct()
    return TagList(tags=sorted(session.scalars(found)))


def experiment_detail(session: Session, store: ArtifactStore, experiment_id: str) -> ExperimentDetail:
    """Return an experiment with the names of its metrics, the names of its results, and its size. Raises
    NotFoundError."""
    experiment, job = find_experiment(session, experiment_id)
    folder = store.experiment(experiment_id)
    results = []
    if (folder / EVALUATION_FILE).is_file():
        results += ["evaluation", "samples"]
    if (folder / SAMPLES_FILE).is_file():
        results.append("sample-history")
    if (folder / ABLATION_FILE).is_file():
        results.append("ablation")
    if (folder / HEADROOM_FILE).is_file():
        results.append("headroom")
    if (folder / ANALYSIS_FILE).is_file():
        results.append("analysis")
    return extend_reply(
        ExperimentDetail,
        _reply(experiment, job),
        metric_names=metric_names(folder, "metrics"),
        rl_metric_names=metric_names(folder, "rl-metrics"),
        results=results,
        size_bytes=size_of(folder),
        vocabulary=_vocabulary(store, experiment_id),
        archive_deleted_at=_archive_deleted_at(session, job),
    )


def _archive_deleted_at(session: Session, job: Job | None) -> datetime | None:
    if job is None or job.finished_at is None:
        return None
    query = select(JobEvent.at).where(JobEvent.job_id == job.id, JobEvent.event == "archive_deleted")
    return session.scalars(query.order_by(JobEvent.id.desc()).limit(1)).first()


def find_experiment(session: Session, experiment_id: str) -> tuple[Experiment, Job | None]:
    """Return the row of an experiment and its newest job. Raises NotFoundError."""
    row = session.execute(_with_newest_job().where(Experiment.id == experiment_id)).first()
    if row is None:
        raise NotFoundError(f"there is no experiment {experiment_id!r}")
    return row[0], row[1]


def experiment_status(session: Session, experiment_id: str) -> ExperimentStatus:
    """Return the status of the newest job of an experiment. Raises NotFoundError."""
    _, job = find_experiment(session, experiment_id)
    if job is None:
        return ExperimentStatus(experiment_id=experiment_id, status=IMPORTED)
    return ExperimentStatus(
        experiment_id=experiment_id,
        status=job.status,
        job_id=job.id,
        attempt=job.attempt,
        progress=progress_of(job),
        error=error_of(job),
        finished_at=job.finished_at,
    )


def read_vocabulary(
    session: Session, store: ArtifactStore, experiment_id: str, *, root_path: str = ""
) -> VocabularyDetail:
    """Return the vocabulary of the language model that an experiment trains, with some entries.

    `root_path` is the prefix under which a proxy serves the api, without a trailing `/`. Raises NotFoundError while the
    vocabulary is unknown, and StorageError if its file is damaged.
    """
    find_experiment(session, experiment_id)
    facts = vocabulary_facts(store.experiment(experiment_id) / VOCABULARY_FILE)
    if facts is not None:
        return VocabularyDetail(
            experiment_id=experiment_id,
            **asdict(facts.description),
            words=list(facts.words),
            longest=list(facts.longest),
            mean_bytes=facts.mean_bytes,
            download=f"{root_path}/api/experiments/{quote(experiment_id)}/checkpoints/{VOCABULARY_FILE}",
        )
    known = _vocabulary(store, experiment_id)
    if known is None:
        raise NotFoundError(f"experiment {experiment_id!r} has no language model whose vocabulary is known")
    return VocabularyDetail(experiment_id=experiment_id, **known.model_dump(), words=[], longest=[])


def _vocabulary(store: ArtifactStore, experiment_id: str) -> VocabularyReply | None:
    """Return the vocabulary from the experiment's file or, without one, from its first checkpoint; None if unknown."""
    facts: VocabularyFacts | None = None
    with suppress(StorageError):  # the page of the experiment must open even if the file is damaged
        facts = vocabulary_facts(store.experiment(experiment_id) / VOCABULARY_FILE)
    if facts is not None:
        return VocabularyReply.model_validate(facts.description)
    models = (file for file in store.checkpoint_files(experiment_id) if not file.policy)
    first = next(models, None)
    found = None if first is None else checkpoint_vocabulary(store.path(experiment_id, first.name))
    return None if found is None else VocabularyReply.model_validate(found)


def read_config(session: Session, store: ArtifactStore, experiment_id: str) -> ConfigReply:
    """Return the configuration from the files of an experiment.

    Until a worker has written them, return the configuration of the job.
    """
    experiment, _ = find_experiment(session, experiment_id)
    folder = store.experiment(experiment_id)
    found = ConfigReply(
        experiment_id=experiment_id,
        config=_read_yaml(folder / "config.yaml") or _read_yaml(folder / "base_config.yaml"),
        rl_config=_read_yaml(folder / "rl_config.yaml"),
    )
    if found.config is None and found.rl_config is None and "config" in experiment.config:
        key = "rl_config" if experiment.type in CONTROLLER_TYPES else "config"
        found = found.model_copy(update={key: experiment.config["config"]})
    return found


def read_result(store: ArtifactStore, experiment_id: str, name: str) -> ResultReply:
    """Return the content of a result file. Raises NotFoundError until the job has written the file, and StorageError if
    the file does not contain a JSON object."""
    value = store.read_json(experiment_id, name)
    if not isinstance(value, dict):
        raise StorageError(f"{experiment_id}/{name} does not contain a JSON object; run the job again")
    return ResultReply(experiment_id=experiment_id, result=value)


def read_samples(store: ArtifactStore, experiment_id: str) -> SampleList:
    """Return the generated texts of the evaluation. Raises the same errors as `read_result`."""
    found = read_result(store, experiment_id, EVALUATION_FILE).result.get("samples", [])
    return SampleList(experiment_id=experiment_id, samples=[Sample.model_validate(item) for item in found])


def read_sample_history(store: ArtifactStore, experiment_id: str, *, max_rows: int) -> SampleHistory:
    """Return the texts that the training generated every few steps, evenly spread over the stored rows.

    Raises NotFoundError until the training has stored the first row, and StorageError for an invalid file. A row that
    is being written is left out.
    """
    try:
        lines = (store.experiment(experiment_id) / SAMPLES_FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        raise NotFoundError(f"{experiment_id} has no samples of different steps") from None
    except OSError as error:
        raise StorageError(f"{experiment_id}/{SAMPLES_FILE} cannot be read ({error.strerror or error})") from error
    lines = [line for line in lines if line.endswith(b"\n")]
    count = min(max_rows, len(lines))
    chosen = [lines[round(i * (len(lines) - 1) / max(count - 1, 1))] for i in range(count)] if count > 1 else lines[-1:]
    try:
        rows = [SampleRow.model_validate_json(line) for line in chosen]
    except ValidationError as error:
        raise StorageError(f"{experiment_id}/{SAMPLES_FILE} has an invalid line; run the job again") from error
    return SampleHistory(experiment_id=experiment_id, rows=rows, total=len(lines))


def _with_newest_job() -> Select[Experiment, Job]:
    newest = (
        select(Job.id)
        .where(Job.experiment_id == Experiment.id)
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(1)
        .correlate(Experiment)
        .scalar_subquery()
    )
    return select(Experiment, Job).outerjoin(Job, Job.id == newest)


def _reply(experiment: Experiment, job: Job | None) -> ExperimentReply:
    return ExperimentReply(
        id=experiment.id,
        type=experiment.type,
        name=experiment.name,
        tags=experiment.tags,
        notes=experiment.notes,
        imported=experiment.imported,
        source_experiment_id=experiment.source_experiment_id,
        source_checkpoint=experiment.source_checkpoint,
        status=job.status if job is not None else IMPORTED,
        job_id=job.id if job is not None else None,
        progress=progress_of(job) if job is not None else None,
        created_at=experiment.created_at,
        updated_at=max(experiment.updated_at, job.updated_at) if job is not None else experiment.updated_at,
    )


def _read_yaml(path: Path) -> dict[str, Any] | None:
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"), finite=False)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise StorageError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    return value if isinstance(value, dict) else None
