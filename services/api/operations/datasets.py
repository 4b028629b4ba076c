"""Datasets: the files in the data folder, with the jobs that tokenise them and the experiments that use them.

The database has no table of datasets. The folder defines which datasets exist. The jobs of a dataset are those whose
payload names the dataset (docs/decisions/0063). `dataset_upload` stores uploads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sqlalchemy import ColumnElement, cast, func, select, type_coerce
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, array
from sqlalchemy.orm import Session, sessionmaker

from common.access import Actor
from common.audit import record_change
from common.config import DataConfig, Settings
from common.datasets import DatasetManifest, DatasetStore
from common.db import Experiment, Job
from common.errors import ConflictError, RateLimitedError
from common.jobs.payloads import DatasetPayload
from common.jobs.queue import NewJob, enqueue_job
from common.jobs.sql import lock_dataset
from services.api.callers import Caller
from services.api.operations.job_view import error_of, job_reply, progress_of
from services.api.operations.ownership import require_own
from tidal_client.vocabulary import LEASED, LIVE, DatasetStatus, JobStatus, JobType
from tidal_client.wire.base import extend_reply
from tidal_client.wire.dataset import DatasetDetail, DatasetList, DatasetReply, DatasetUploaded, DatasetUse

MAX_USES = 100


def all_datasets(session: Session, store: DatasetStore) -> DatasetList:
    """Return all datasets, newest first."""
    return DatasetList(datasets=_replies(session, store, store.manifests()))


def get_dataset(session: Session, store: DatasetStore, name: str) -> DatasetDetail:
    """Return a dataset with the experiments that use it. Raises NotFoundError."""
    reply = _replies(session, store, [store.find(name)])[0]
    return extend_reply(DatasetDetail, reply, uses=_uses(session, name))


def ensure_tokenised(
    session: Session,
    settings: Settings,
    store: DatasetStore,
    manifest: DatasetManifest,
    actor: Actor,
    *,
    created: bool,
) -> DatasetUploaded:
    """Return the dataset, which an upload has just `created` or found, and the unfinished job that tokenises it.

    If there are neither tokens nor an unfinished job, submit a new job. The returned job is None if the tokens exist,
    or if no job can be submitted because too many jobs are waiting.
    """
    lock_dataset(session, manifest.name, shared=False)
    job = _newest_jobs(session, [manifest]).get(manifest.name)
    if store.tokens(manifest) is None and (job is None or job.status not in LIVE):
        payload = DatasetPayload(data=DataConfig(source=manifest.name), sha256=manifest.sha256)
        # If too many jobs are waiting, the upload still succeeds. The first training on the dataset then tokenises it.
        with suppress(RateLimitedError):
            new = NewJob(type=JobType.DATASET, payload=payload, name=manifest.name, actor=actor)
            job = enqueue_job(session, new, settings)
            created = True  # there is a new job, so this request has changed something
    if created:
        after = {"format": manifest.format, "bytes": manifest.size_bytes, "sha256": manifest.sha256}
        record_change(session, actor, "dataset.upload", manifest.name, after=after)
    live = job is not None and job.status in LIVE
    reply = _replies(session, store, [manifest])[0]
    return DatasetUploaded(dataset=reply, job=job_reply(job) if job is not None and live else None)


def delete_dataset(sessions: sessionmaker[Session], store: DatasetStore, name: str, caller: Caller) -> None:
    """Delete the text and the tokens of a dataset.

    Raises NotFoundError, ForbiddenError if another token uploaded the dataset, and ConflictError until all jobs that
    need the dataset have ended.
    """
    with sessions.begin() as session:
        lock_dataset(session, name, shared=False)
        manifest = store.find(name)
        require_own(caller, _uploader(session, manifest), f"dataset {name!r}")
        live = select(Job).where(Job.status.in_(LIVE), _names_one_of([name])).order_by(Job.created_at).limit(1)
        job = session.scalars(live).first()
        if job is not None:
            does = "tokenises" if job.type == JobType.DATASET else "needs"
            raise ConflictError(f"job {job.id} ({job.status}) {does} the dataset; cancel the job or wait until it ends")
        before = {"format": manifest.format, "bytes": manifest.size_bytes, "sha256": manifest.sha256}
        record_change(session, caller, "dataset.delete", name, before=before)
        detached = store.detach(name)
    store.discard(detached)


def _replies(session: Session, store: DatasetStore, manifests: list[DatasetManifest]) -> list[DatasetReply]:
    jobs = _newest_jobs(session, manifests)
    counts = _use_counts(session, [manifest.name for manifest in manifests])
    replies = []
    for manifest in manifests:
        tokens, job = store.tokens(manifest), jobs.get(manifest.name)
        status: DatasetStatus = "ready" if tokens is not None else _status(job)
        replies.append(
            DatasetReply(
                name=manifest.name,
                status=status,
                format=manifest.format,
                text_field=manifest.text_field,
                sha256=manifest.sha256,
                size_bytes=manifest.size_bytes,
                documents=tokens.documents if tokens is not None else manifest.documents,
                tokens=tokens.train_tokens + tokens.validation_tokens if tokens is not None else None,
                validation_tokens=tokens.validation_tokens if tokens is not None else None,
                job_id=job.id if job is not None else None,
                experiment_id=job.experiment_id if job is not None else None,
                job_status=JobStatus(job.status) if job is not None else None,
                progress=progress_of(job) if job is not None and status == "tokenising" else None,
                error=error_of(job) if job is not None and status == "failed" else None,
                used_by=counts.get(manifest.name, 0),
                created_at=manifest.created_at,
            )
        )
    return replies


def _status(job: Job | None) -> DatasetStatus:
    if job is None:
        return "uploaded"
    if job.status in LEASED:
        return "tokenising"
    return "failed" if job.status == JobStatus.FAILED else "uploaded"


def _newest_jobs(session: Session, manifests: Iterable[DatasetManifest]) -> dict[str, Job]:
    """Return {name of a dataset: newest job that tokenises it}. Jobs that tokenise an earlier content of a dataset are
    ignored."""
    current = {manifest.name: manifest.sha256 for manifest in manifests}
    if not current:
        return {}
    source, sha256 = Job.payload["data"]["source"].astext, Job.payload["sha256"].astext
    query = select(Job, source).where(
        Job.type == JobType.DATASET, source.in_(list(current)), sha256.in_(list(current.values()))
    )
    found: dict[str, Job] = {}
    for job, name in session.execute(query.order_by(Job.created_at.desc(), Job.id.desc())):
        if job.payload["sha256"] == current[name]:
            found.setdefault(name, job)
    return found


def _uploader(session: Session, manifest: DatasetManifest) -> str | None:
    """Return the id of the named token that uploaded a dataset: that of the newest job that tokenises it."""
    job = _newest_jobs(session, [manifest]).get(manifest.name)
    return None if job is None else job.token_id


def _names() -> ColumnElement[Any]:
    """Return an SQL expression for the names in the `data` section of a job's payload: a JSON array.

    It contains the sources and validation sources of all corpora, and may contain null. For lm-training, the section is
    inside `config`.
    """
    data = func.coalesce(Job.payload["config"]["data"], Job.payload["data"])
    single = func.jsonb_build_array(data["source"], data["validation_source"])
    listed = [
        func.jsonb_path_query_array(data, cast(f"$.sources[*].{field}", JSONPATH), type_=JSONB)
        for field in ("source", "validation_source")
    ]
    return type_coerce(single, JSONB).concat(listed[0]).concat(listed[1])


def _names_one_of(names: list[str]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = _names().has_any(array(names))
    return found


def _use_counts(session: Session, names: list[str]) -> dict[str, int]:
    if not names:
        return {}
    query = select(Job.experiment_id, _names()).where(Job.type != JobType.DATASET, _names_one_of(names))
    users: defaultdict[str, set[str]] = defaultdict(set)
    for experiment, named in session.execute(query):
        for name in named:
            users[name].add(experiment)
    return {name: len(users[name]) for name in names if name in users}


def _uses(session: Session, name: str) -> list[DatasetUse]:
    query = (
        select(Job, Experiment.name)
        .join(Experiment, Experiment.id == Job.experiment_id)
        .where(Job.type != JobType.DATASET, _names_one_of([name]))
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(MAX_USES)
    )
    return [
        DatasetUse(
            experiment_id=job.experiment_id,
            name=title,
            job_id=job.id,
            type=JobType(job.type),
            status=JobStatus(job.status),
            created_at=job.created_at,
        )
        for job, title in session.execute(query)
    ]
