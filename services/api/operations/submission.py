"""Submits the job that a body of `POST /api/jobs` describes: reads files, merges overrides and checks references.

Everything that can be checked without a worker is checked here. An accepted job should not fail an hour later because
of a typing error. Files are read before the transaction begins, because the transaction holds the lock of the
Idempotency-Key. `common.jobs.submission` writes the rows of a job.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from sqlalchemy import select
from sqlalchemy.orm import Session

from common.access import Actor
from common.artifacts import checkpoint_vocabulary
from common.audit import record_change
from common.config import (
    AnalysisConfig,
    DataConfig,
    EvaluationConfig,
    LMConfig,
    ModelConfig,
    PolicyConfig,
    RLConfig,
    build,
    load_lm_config,
    load_rl_config,
)
from common.config.from_checkpoint import load_from_checkpoint
from common.datasets import is_dataset_name
from common.db import Job
from common.errors import ConfigError, InvalidInputError, NotFoundError, TidalError
from common.jobs.payloads import (
    AblationPayload,
    AnalysisPayload,
    DatasetPayload,
    EvaluationPayload,
    HeadroomPayload,
    JobPayload,
    LmTrainingPayload,
    RlTrainingPayload,
)
from common.jobs.registry import CHECKPOINT_FOLDER
from common.jobs.submission import NewJob, enqueue_job, submitted_before
from common.prediction.automatic_depth import resolve_depth
from common.words import with_article
from services.api.context import Context
from services.api.operations import jobs
from services.api.operations.checkpoints import check_reference
from services.api.operations.configs import find_config
from services.api.operations.corpora import check_corpus, hold_datasets
from services.api.operations.predictions import prepare_prediction
from services.api.operations.trained_config import experiment_config
from services.api.schemas.jobs import JobRequest
from tidal_client.vocabulary import CheckpointMode, JobType
from tidal_client.wire.job import JobDetail, JobPrediction

DEFAULT_LM = "base_config.yaml"
DEFAULT_RL = "rl_config.yaml"

S = TypeVar("S", bound=BaseModel)

_USED: dict[JobType, frozenset[str]] = {
    JobType.LM_TRAINING: frozenset({"config_path", "config", "checkpoint", "checkpoint_mode"}),
    JobType.RL_TRAINING: frozenset({"config_path", "rl_config_path", "config", "data", "checkpoint"}),
    JobType.EVALUATION: frozenset({"config_path", "config", "data", "checkpoint"}),
    JobType.HEADROOM: frozenset({"config_path", "rl_config_path", "config", "data", "checkpoint"}),
    JobType.ABLATION: frozenset({"config_path", "rl_config_path", "config", "data", "checkpoint", "rl_checkpoint"}),
    JobType.ANALYSIS: frozenset({"config", "checkpoint", "rl_checkpoint"}),
    JobType.DATASET: frozenset({"data"}),
}
_SPECIFIC = frozenset(
    {"config_path", "rl_config_path", "config", "data", "checkpoint", "checkpoint_mode", "rl_checkpoint"}
)


def submit_job(
    context: Context, request: JobRequest, idempotency_key: str | None, actor: Actor
) -> tuple[JobDetail, bool]:
    """Submit the job that `request` describes, or return the job that was already submitted with the same
    Idempotency-Key.

    The second value is True if the job existed already. A repeated request returns its job even if files named in the
    request have changed since. Therefore errors in these files are raised only for a new key. Raises the errors of
    `new_job` and of `common.jobs.submission`.
    """
    digest = body_hash(request) if idempotency_key is not None else None
    new: NewJob | TidalError
    try:
        new = new_job(context, request, idempotency_key=idempotency_key, digest=digest, actor=actor)
    except TidalError as error:
        new = error
    predict = None if isinstance(new, TidalError) else prepare_prediction(context, new)
    with context.sessions.begin() as session:
        known = None
        if idempotency_key is not None and digest is not None:
            known = submitted_before(session, idempotency_key, digest)
        if known is not None:
            return jobs.detail(session, context.outlook, known), True
        if isinstance(new, TidalError):
            raise new
        _hold_datasets(session, context, new)
        predicted = predict(session) if predict is not None else None
        if predicted is not None:
            new = replace(new, prediction=predicted.model_dump(mode="json"))
        job = enqueue_job(session, new, context.settings)
        after = {"type": job.type, "name": job.name, "experiment": job.experiment_id}
        record_change(session, actor, "job.submit", job.id, after=after)
        return jobs.detail(session, context.outlook, job), False


def predict_job(context: Context, request: JobRequest) -> JobPrediction:
    """Predict what `submit_job` would do now, without writing anything. Raises the errors of `submit_job`."""
    new = new_job(context, request)
    predict = prepare_prediction(context, new)
    with context.sessions() as session:
        _hold_datasets(session, context, new)
        found = jobs.predict_submission(session, context.settings, new)
        return found.model_copy(update={"training": predict(session)})


def new_job(
    context: Context,
    request: JobRequest,
    *,
    idempotency_key: str | None = None,
    digest: str | None = None,
    actor: Actor | None = None,
) -> NewJob:
    """Return the checked submission.

    Raises InvalidInputError, ConfigError or NotFoundError; the error names the invalid field.
    """
    given = request.model_fields_set & _SPECIFIC
    unused = sorted(given - _USED[request.type])
    if unused:
        raise _invalid(unused[0], f"{with_article(request.type)} job does not use it")
    parent, start = _resume_source(context, request) if request.resume_from is not None else (None, None)
    payload = _resumed_payload(parent, request) if parent is not None else _new_payload(context, request)
    if payload.corpus is not None:
        check_corpus(payload.corpus, context.datasets, location=_corpus_location(payload))
    return NewJob(
        type=request.type,
        payload=payload,
        name=request.name,
        tags=tuple(dict.fromkeys(request.tags)),
        priority=request.priority,
        gpus=request.gpus,
        not_before=request.not_before,
        parent_id=parent.id if parent is not None else None,
        resume_checkpoint=start,
        wait=request.queue,
        idempotency_key=idempotency_key,
        body_hash=digest,
        actor=actor,
    )


def _new_payload(context: Context, request: JobRequest) -> JobPayload:
    if request.type is JobType.LM_TRAINING:
        return _lm_training(context, request)
    if request.type is JobType.DATASET:
        return _dataset(context, request)
    checkpoint = _checkpoint(context, request)
    if request.type is JobType.ANALYSIS:
        analysis = _build_section(AnalysisConfig, {}, request.config, "config")
        return _analysis(context, request, checkpoint, analysis)
    inherited = _inherited(context, request, checkpoint)
    data = _build_section(DataConfig, inherited.data.model_dump(), request.data, "data")
    if request.type is JobType.EVALUATION:
        evaluation = _build_section(EvaluationConfig, inherited.evaluation.model_dump(), request.config, "config")
        return EvaluationPayload(checkpoint=checkpoint, data=data, evaluation=evaluation)
    config = _rl_config(context, request)
    if request.type is JobType.RL_TRAINING:
        return RlTrainingPayload(config=config, checkpoint=checkpoint, data=data)
    if request.type is JobType.HEADROOM:
        return HeadroomPayload(checkpoint=checkpoint, config=config, data=data)
    if request.rl_checkpoint is None:
        raise _invalid("rl_checkpoint", "an ablation needs the controller to compare")
    policy = check_reference(context.store, request.rl_checkpoint, location="body.rlCheckpoint", policy=True)
    return AblationPayload(checkpoint=checkpoint, rl_checkpoint=policy, config=config, data=data)


def _lm_training(context: Context, request: JobRequest) -> LmTrainingPayload:
    if request.checkpoint is None:
        if "checkpoint_mode" in request.model_fields_set:
            raise _invalid("checkpoint_mode", "there is no checkpoint to continue or to fine-tune; set checkpoint")
        return LmTrainingPayload(config=_pretraining_config(context, request, request.config))
    initial, mode = _checkpoint(context, request), request.checkpoint_mode
    if mode is CheckpointMode.CONTINUE and not initial.split("/", 1)[1].startswith(f"{CHECKPOINT_FOLDER}/"):
        raise _invalid(
            "checkpoint_mode",
            f"{initial!r} contains weights, but no training state to continue; choose auto or fine-tune, or name one "
            f"of {initial.split('/', 1)[0]}/{CHECKPOINT_FOLDER}/…",
        )
    trained = experiment_config(context.store, initial)
    config = _pretraining_config(context, request, request.config, trained)
    config = _with_vocabulary(context, config, initial)
    return LmTrainingPayload(config=config, initial_checkpoint=initial, checkpoint_mode=mode)


def _with_vocabulary(context: Context, config: LMConfig, initial: str) -> LMConfig:
    """Return `config` with the vocabulary of the checkpoint `initial`, which the training continues to use."""
    stored = checkpoint_vocabulary(context.store.resolve(initial))
    if stored is None:
        return config  # the trainer reports a damaged manifest
    try:
        return config.with_vocabulary(stored.name, stored.size)
    except ConfigError as error:
        raise _invalid("config.data.tokenizer", error.message) from None


def _corpus_location(payload: JobPayload) -> str:
    """Return the location, within the request, of the field that names the corpus of the job."""
    return "body.config.data" if isinstance(payload, LmTrainingPayload) else "body.data"


def _hold_datasets(session: Session, context: Context, new: NewJob) -> None:
    payload = new.checked_payload
    if payload.corpus is not None:
        hold_datasets(session, payload.corpus, context.datasets, location=_corpus_location(payload))


def _dataset(context: Context, request: JobRequest) -> DatasetPayload:
    data = _build_section(DataConfig, {}, request.data, "data")
    if "source" not in request.data and "sources" not in request.data:
        raise _invalid("data.source", "a dataset job needs a corpus to tokenise: give the name of a dataset or a file")
    if data.source is not None and is_dataset_name(data.source) and context.datasets.has(data.source):
        return DatasetPayload(data=data, sha256=context.datasets.find(data.source).sha256)
    return DatasetPayload(data=data)


def _analysis(context: Context, request: JobRequest, checkpoint: str, config: AnalysisConfig) -> AnalysisPayload:
    if not config.uses_policy and request.rl_checkpoint is not None:
        raise _invalid(
            "rl_checkpoint",
            "a controller is used only with gating_mode learned, and never for kind sweep; leave it out",
        )
    if not config.uses_policy:
        return AnalysisPayload(checkpoint=checkpoint, analysis=config)
    if request.rl_checkpoint is None:
        raise _invalid("rl_checkpoint", "gating_mode learned needs a controller; or set gating_mode to random or fixed")
    policy = check_reference(context.store, request.rl_checkpoint, location="body.rlCheckpoint", policy=True)
    return AnalysisPayload(checkpoint=checkpoint, rl_checkpoint=policy, analysis=config)


def _resumed_payload(parent: Job, request: JobRequest) -> JobPayload:
    """Return the payload of the job to resume, changed by the `config` of the request.

    The changes must not concern the shape of the model.
    """
    for field in ("config_path", "rl_config_path", "checkpoint", "checkpoint_mode", "data"):
        if field in request.model_fields_set:
            raise _invalid(field, "a resumed job uses the value of the job that it resumes; leave it out")
    if request.type is JobType.LM_TRAINING:
        config = _build_section(LMConfig, parent.payload["config"], request.config, "config")
        before = ModelConfig.model_validate(parent.payload["config"]["model"]).shape()
        changed = [name for name, value in config.model.shape().items() if value != before[name]]
        if changed:
            kept = ", ".join(f"{name} {before[name]}" for name in changed)
            raise _invalid("config.model", f"the shape of the model cannot change when training resumes; keep {kept}")
        return LmTrainingPayload.model_validate({**parent.payload, "config": config})
    if request.type is JobType.RL_TRAINING:
        rl = _build_section(RLConfig, parent.payload["config"], request.config, "config")
        if rl.policy != PolicyConfig.model_validate(parent.payload["config"]["policy"]):
            raise _invalid("config.policy", "the shape of the policy cannot change when training resumes; leave it out")
        mode = RLConfig.model_validate(parent.payload["config"]).constraint.mode
        if rl.constraint.mode != mode:
            raise _invalid("config.constraint.mode", f"it decides whether there is a cost critic; keep {mode}")
        return RlTrainingPayload.model_validate({**parent.payload, "config": rl})
    raise _invalid("resume_from", f"{with_article(request.type)} job has no training state to resume; submit a new job")


def _resume_source(context: Context, request: JobRequest) -> tuple[Job, str | None]:
    """Return the job to resume from, and the checkpoint that the request names; None means the newest checkpoint.

    `resumeFrom` is the id of a job, the id of an experiment, or a checkpoint `<experiment id>/<file>`. For an
    experiment or a checkpoint, the job is the newest one of the experiment.
    """
    assert request.resume_from is not None
    named, start = request.resume_from.removeprefix("experiments/"), None
    if "/" in named:
        start = _training_checkpoint(context, named, policy=request.type is JobType.RL_TRAINING)
        named = start.split("/", 1)[0]
    newest = select(Job).where(Job.experiment_id == named).order_by(Job.created_at.desc()).limit(1)
    with context.sessions() as session:
        parent = session.get(Job, named) or session.scalars(newest).first()
    if parent is None:
        raise NotFoundError(
            f"resumeFrom: there is no job or experiment {named!r}",
            errors=[{"location": "body.resumeFrom", "message": "no such job or experiment"}],
        )
    if parent.type != request.type:
        raise _invalid("resume_from", f"{with_article(request.type)} job cannot resume {with_article(parent.type)} job")
    return parent, start


def _training_checkpoint(context: Context, reference: str, *, policy: bool) -> str:
    """Check that a checkpoint contains training state, and return its reference with aliases resolved."""
    found = check_reference(context.store, reference, location="body.resumeFrom", policy=policy)
    experiment_id, name = found.split("/", 1)
    if not name.startswith(f"{CHECKPOINT_FOLDER}/"):
        raise _invalid(
            "resume_from",
            f"{reference!r} contains weights, but no training state; give one of {experiment_id}/{CHECKPOINT_FOLDER}/…"
            + ("" if policy else ", or give the reference as `checkpoint` to start a new training from these weights"),
        )
    return found


def _checkpoint(context: Context, request: JobRequest) -> str:
    if request.checkpoint is None:
        raise _invalid("checkpoint", f"{with_article(request.type)} job needs the checkpoint of a language model")
    return check_reference(context.store, request.checkpoint, location="body.checkpoint", policy=False)


def _inherited(context: Context, request: JobRequest, checkpoint: str) -> LMConfig:
    """Return the configuration with which the model was trained.

    If this configuration cannot be read, return the one that `configPath` names; without `configPath`, the default.
    """
    return experiment_config(context.store, checkpoint) or _lm_config(context, request, {})


def _pretraining_config(
    context: Context, request: JobRequest, overrides: Mapping[str, Any], trained: LMConfig | None = None
) -> LMConfig:
    config = _lm_config(context, request, overrides, trained)
    try:
        return resolve_depth(config, context.settings.data_dir)
    except ConfigError as error:
        raise _with_request_locations(error) from None


def _lm_config(
    context: Context, request: JobRequest, overrides: Mapping[str, Any], trained: LMConfig | None = None
) -> LMConfig:
    """Return the configuration for the request; with `trained`, its model has the shape of that configuration's."""
    folder = context.settings.config_dir
    if request.config_path is not None:
        path = find_config(folder, request.config_path, location="body.configPath")
    else:
        path = folder / DEFAULT_LM
    try:
        file, name = path if path.is_file() else None, request.config_path or DEFAULT_LM
        if trained is not None:
            return load_from_checkpoint(file, overrides, trained, name=name)
        return load_lm_config(file, overrides, name=name)
    except ConfigError as error:
        raise _with_request_locations(error) from None


def _rl_config(context: Context, request: JobRequest) -> RLConfig:
    folder = context.settings.config_dir
    if request.rl_config_path is not None:
        path = find_config(folder, request.rl_config_path, location="body.rlConfigPath")
    else:
        path = folder / DEFAULT_RL
    try:
        name = request.rl_config_path or DEFAULT_RL
        return load_rl_config(path if path.is_file() else None, request.config, name=name)
    except ConfigError as error:
        raise _with_request_locations(error) from None


def _build_section(kind: type[S], values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> S:
    try:
        return build(kind, values, overrides, where=where)
    except ConfigError as error:
        raise _with_request_locations(error, where) from None


def _with_request_locations(error: ConfigError, where: str = "config") -> ConfigError:
    """Return the error of a configuration as an error of the request: with the locations of the fields in the body, and
    without paths of the server."""
    findings = [
        {**item, "location": ".".join(part for part in ("body", where, item["location"]) if part)}
        for item in error.errors
    ]
    text = "; ".join(f"{item['location']}: {item['message']}" for item in findings) or error.message
    return ConfigError(text, errors=findings)


def _invalid(field: str, message: str) -> InvalidInputError:
    location = ".".join(["body", *(to_camel(part) for part in field.split("."))])
    return InvalidInputError.at(location, message)


def body_hash(request: JobRequest) -> str:
    """Return a hash of the content of the body. Whitespace and the order of keys do not change the hash."""
    body = request.model_dump(mode="json", exclude_unset=True)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
