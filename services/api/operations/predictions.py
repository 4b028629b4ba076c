"""Predicts parameters, memory and duration of a pretraining for the workers that could run it, and compares a job's
prediction with its measurement."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.orm import Session

from common.db import Job
from common.jobs.earlier_runs import earlier_runs
from common.jobs.payloads import QUEUES, LmTrainingPayload
from common.jobs.submission import NewJob
from common.prediction.calibration import parse_calibration
from common.prediction.corpus_size import find_corpus_size
from common.prediction.estimate import Candidate, predict_training, shape_key
from common.prediction.fine_tuning import fine_tunes
from common.prediction.machine import Machine
from services.api.context import Context
from services.api.operations.trained_config import experiment_config
from services.api.workers import WorkerBeat
from tidal_client.wire.base import Reply
from tidal_client.wire.prediction import TrainingMeasurement, TrainingPrediction

_STEP = re.compile(r"/checkpoints/step-(\d+)(?:\.\d+)?$")
"""A checkpoint with training state. A second one of the same step has a suffix such as `.1`."""
R = TypeVar("R", bound=Reply)


def prepare_prediction(context: Context, new: NewJob) -> Callable[[Session], TrainingPrediction | None]:
    """Read the files and heartbeats that the prediction of `new` needs; return a function that completes it.

    The function reads only the database, so a transaction may call it. It returns None for other types than
    lm-training.
    """
    payload = new.checked_payload
    if not isinstance(payload, LmTrainingPayload):
        return lambda _session: None
    candidates = _candidates(context.outlook.workers.alive(QUEUES[new.type]) or [])
    calibration = next((found.calibration for found in candidates if found.calibration is not None), None)
    corpus = find_corpus_size(
        payload.config.data,
        context.settings.data_dir,
        bytes_per_token=calibration.bytes_per_token if calibration else None,
        builtin_bytes=calibration.builtin_bytes if calibration else None,
    )

    from_weights = _fine_tunes(context, new, payload)

    def predict(session: Session) -> TrainingPrediction:
        runs = earlier_runs(session, shape_key(payload.config), [found.machine.key for found in candidates])
        return predict_training(
            payload.config,
            corpus,
            [replace(candidate, runs=runs) for candidate in candidates],
            first_step=0 if from_weights else _first_step(session, new, payload),
            fine_tunes=from_weights,
        )

    return predict


def stored(kind: type[R], values: object) -> R | None:
    """Return the prediction or measurement that a column of a job holds.

    Return None if the column is empty, or if another version of Tidal has written fields that `kind` does not accept.
    """
    try:
        return None if values is None else kind.model_validate(values)
    except ValidationError:
        return None


def prediction_of(job: Job) -> TrainingPrediction | None:
    """Return what was predicted when the job was submitted."""
    return stored(TrainingPrediction, job.prediction)


def measurement_of(job: Job) -> TrainingMeasurement | None:
    """Return what the job has needed."""
    return stored(TrainingMeasurement, job.measurement)


def _candidates(beats: list[WorkerBeat]) -> list[Candidate]:
    """Return one candidate for each kind of machine on which a worker may claim jobs.

    Machines of one kind can have different amounts of memory; the candidate has the smallest.
    """
    found: dict[str, Candidate] = {}
    for beat in beats:
        if beat.state == "leaving" or not beat.machine:
            continue
        try:
            machine = Machine.model_validate_json(beat.machine)
        except ValidationError:
            continue  # a worker of another version of Tidal describes its machine in another way
        calibration = parse_calibration(beat.calibration) if beat.calibration else None
        limit = int(beat.memory_limit) if beat.memory_limit.isdigit() else None
        known = found.get(machine.key)
        if known is not None:
            calibration = known.calibration or calibration
            limit = min((each for each in (known.memory_limit, limit) if each is not None), default=None)
        found[machine.key] = Candidate(machine, calibration, limit)
    return list(found.values())


def _fine_tunes(context: Context, new: NewJob, payload: LmTrainingPayload) -> bool:
    """Return whether the training will start from weights with a new optimiser. A resumed job never does."""
    initial = payload.initial_checkpoint
    if new.parent_id is not None or initial is None:
        return False
    trained = experiment_config(context.store, initial)
    return fine_tunes(payload.checkpoint_mode, payload.config, trained, has_state=_STEP.search(initial) is not None)


def _first_step(session: Session, new: NewJob, payload: LmTrainingPayload) -> int:
    """Return the number of steps that are already done in the checkpoint from which the job starts.

    The payload of a resumed job still names the checkpoint from which its parent has started.
    """
    parent = session.get(Job, new.parent_id) if new.parent_id is not None else None
    start = payload.initial_checkpoint if parent is None else new.resume_checkpoint or parent.checkpoint_ref
    named = _STEP.search(start or "")
    if named is not None:
        return int(named.group(1))
    return (parent.checkpoint_step or 0) if parent is not None else 0
