"""Predicts parameters, memory and duration of a pretraining for each kind of machine that could run it.

Earlier runs of the same shape on the same kind of machine replace the calibration: the median of their speeds and
the largest of their memory peaks. Without such runs, the calibration is used; without both, the figures are omitted and
a note states what is missing.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from common.config.depth import MODEL_FIELDS, TRAINING_FIELDS
from common.config.lm import LMConfig
from common.config.model import ARCHITECTURE
from common.prediction.calibration import Calibration
from common.prediction.duration import calibrated_seconds, phase_seconds
from common.prediction.machine import Machine
from common.prediction.memory import peak_bytes
from common.prediction.model_size import flops_per_token, parameters
from common.prediction.plan import CorpusSize, TrainingPlan, plan_training
from common.words import plural
from tidal_client.wire.prediction import MachinePrediction, TrainingMeasurement, TrainingPrediction

RUNS = 5
"""Largest number of earlier runs of the same shape that are used; the newest ones are taken."""
COMPILED_RUN_SECONDS = 300.0
"""If a training takes longer than this many seconds, a note mentions that torch.compile may make it faster than
predicted."""


@dataclass(frozen=True)
class Candidate:
    """A kind of machine that could run the training."""

    machine: Machine
    calibration: Calibration | None
    memory_limit: int | None = None
    """Memory of the host in bytes, if known."""
    runs: Sequence[TrainingMeasurement] = ()
    """Earlier runs of any shape on any machine, newest first."""


@dataclass
class _Figures:
    """The fields of a MachinePrediction while they are collected."""

    machine: str
    description: str
    device: str
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    fits: bool | None = None
    duration_seconds: float | None = None
    tokens_per_second: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    basis: str = ""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def shape_key(config: LMConfig) -> str:
    """Return 12 hexadecimal digits that identify what determines speed and memory of a training on a given machine."""
    training, changed = config.training, config.model.changed_architecture()
    # Measurements of earlier versions, which had none of these settings, keep their key.
    model = {name: value for name, value in config.model.shape().items() if name in changed or name not in ARCHITECTURE}
    values: dict[str, object] = {
        "model": {**model, "dropout": config.model.dropout},
        "batch": [training.effective_batch_size, training.micro_batch_size],
        "device": [training.device, training.precision, training.compile, training.threads],
        "evaluation": config.evaluation.batch_size,
    }
    if training.optimizer != "adamw":
        values["optimizer"] = training.optimizer
    if training.average_decay is not None:
        values["average"] = True
    if training.initial_batch_size is not None:
        values["growing"] = [training.initial_batch_size, training.batch_growth_ratio]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def predict_training(
    config: LMConfig,
    corpus: CorpusSize | None,
    candidates: Sequence[Candidate],
    *,
    first_step: int = 0,
    fine_tunes: bool = False,
) -> TrainingPrediction:
    """Return the prediction of a training that continues after `first_step` on each of `candidates`.

    `fine_tunes` means that it starts from the weights of a checkpoint with a new optimiser.
    """
    plan = plan_training(config, corpus, first_step)
    notes = [] if config.model.depth is None else [_settings_of_depth(config)]
    if plan is None:
        notes.append(
            "The duration is unknown, because the corpus has not been tokenised yet and its size is unknown. Set "
            "training.max_steps and evaluation.max_batches, or submit a dataset job first."
        )
    elif corpus is None:
        notes.append("The corpus has not been opened yet; it is assumed to be large enough for training.max_steps.")
    elif corpus.estimated:
        notes.append("The corpus has not been tokenised yet; its number of tokens is estimated from its size.")
    if fine_tunes:
        notes.append(
            "The training is a fine-tuning: it starts from the weights of the checkpoint with a new optimiser, and its "
            f"learning rate peaks at {config.training.fine_tuning_peak():g}."
        )
    if not candidates:
        notes.append("No running worker is known, so memory and duration are unknown.")
    if plan is not None and config.training.patience < plan.validations:
        notes.append(f"Training ends earlier if {config.training.patience} validations in a row bring no improvement.")
    return TrainingPrediction(
        parameters=parameters(config.model),
        flops_per_token=flops_per_token(config.model),
        steps=None if plan is None else plan.steps,
        tokens=None if plan is None else plan.tokens,
        machines=[
            MachinePrediction.model_validate(_on_machine(config, plan, corpus, candidate)) for candidate in candidates
        ],
        notes=notes,
    )


def _settings_of_depth(config: LMConfig) -> str:
    """Return in words what follows from `model.depth`, or what was set beside it."""
    model, training = config.model, config.training
    fields = [f"{name} {getattr(model, name)}" for name in (*MODEL_FIELDS, "dropout")]
    fields += [f"{name} {getattr(training, name):g}" for name in (*TRAINING_FIELDS, "weight_decay")]
    return f"model.depth is {model.depth}: {', '.join(fields)}."


def _on_machine(
    config: LMConfig, plan: TrainingPlan | None, corpus: CorpusSize | None, candidate: Candidate
) -> _Figures:
    machine, calibration = candidate.machine, candidate.calibration
    gpu = machine.uses_gpu if config.training.device == "auto" else config.training.device.startswith("cuda")
    found = _Figures(machine=machine.key, description=machine.description, device="cuda" if gpu else "cpu")
    if gpu and not machine.uses_gpu:
        found.warnings.append(f"The job asks for the device {config.training.device}, but this machine has no GPU.")
        return found
    key = shape_key(config)
    # An attempt that resumed after the last step only evaluates; it shows neither the speed nor the memory of training.
    runs = [run for run in candidate.runs if (run.machine, run.shape) == (machine.key, key) and run.steps > 0][:RUNS]
    usable = calibration if calibration is None or _applies(config, calibration, gpu, found.notes) else None
    if calibration is None:
        found.notes.append("This machine has not been calibrated yet; its worker does so while it is idle.")
    found.basis = _basis(runs, usable)
    length = config.model.context_length if plan is None else plan.length
    if runs:
        found.memory_bytes = max(run.memory_bytes for run in runs)
    elif usable is not None:
        copied = plan is None or _saves_before_its_end(config, plan, usable)
        found.memory_bytes = peak_bytes(config, length, usable.memory, gpu=gpu, checkpoint=copied)
    found.memory_limit_bytes = (
        (calibration.device_memory_bytes if calibration else None) if gpu else candidate.memory_limit
    )
    _check_fit(found, gpu)
    if plan is not None:
        _add_duration(found, config, plan, corpus, runs, usable)
    return found


def _saves_before_its_end(config: LMConfig, plan: TrainingPlan, calibration: Calibration) -> bool:
    """Return whether checkpoints are written while the training computes: by steps, by time, or after a validation."""
    saving = config.checkpoint
    if plan.validations > 1 or (saving.every_steps is not None and saving.every_steps < plan.steps):
        return True
    return calibrated_seconds(config, plan, calibration) > saving.every_seconds


def _add_duration(
    found: _Figures,
    config: LMConfig,
    plan: TrainingPlan,
    corpus: CorpusSize | None,
    runs: Sequence[TrainingMeasurement],
    calibration: Calibration | None,
) -> None:
    speeds = [run.tokens_per_second for run in runs if run.tokens_per_second]
    speed = statistics.median(speeds) if speeds else None
    if calibration is not None:
        text_bytes = 0 if corpus is None else corpus.text_bytes
        phases = phase_seconds(config, plan, calibration, text_bytes=text_bytes, tokens_per_second=speed)
        found.phases = {name: round(seconds, 3) for name, seconds in phases.items()}
        if speed is None and plan.tokens:
            speed = plan.tokens / calibrated_seconds(config, plan, calibration)
        if not speeds and config.training.compile != "off" and sum(phases.values()) > COMPILED_RUN_SECONDS:
            found.notes.append("The calibration does not use torch.compile. If the training does, it may be faster.")
    elif speed is not None:
        # Without a calibration, the time outside the steps is the median of the earlier runs, not scaled to this plan.
        other = statistics.median([max(0.0, run.seconds - run.training_seconds) for run in runs])
        limit = config.training.max_seconds
        steps = plan.tokens / speed
        found.phases = {"training": round(steps if limit is None else min(steps, limit), 3), "other": round(other, 3)}
    else:
        return
    if speed is not None and any(run.compiled for run in runs):
        compiling = statistics.median([max(0.0, run.training_seconds - run.tokens / speed) for run in runs])
        found.phases["compile"] = round(compiling, 3)
    found.tokens_per_second = speed
    found.duration_seconds = sum(found.phases.values())


def _applies(config: LMConfig, calibration: Calibration, gpu: bool, notes: list[str]) -> bool:
    """Return whether the calibration describes the device and the precision of the training; add notes."""
    training = config.training
    if gpu != calibration.machine.uses_gpu:
        notes.append("The calibration of this machine is of its GPU, but the job asks for the CPU.")
        return False
    if training.precision not in ("auto", calibration.precision):
        notes.append(f"The calibration of this machine is in {calibration.precision}, not in {training.precision}.")
        return False
    if not gpu and training.threads not in (None, calibration.threads):
        notes.append(
            f"The calibration used {plural(calibration.threads, 'thread')}; the speed is scaled to {training.threads}."
        )
    return True


def _basis(runs: Sequence[TrainingMeasurement], calibration: Calibration | None) -> str:
    """Return in words what the figures follow from."""
    if runs:
        return f"{plural(len(runs), 'earlier run')} of the same shape on this kind of machine"
    if calibration is not None:
        return f"calibration of this machine on {calibration.measured_at:%Y-%m-%d}"
    return ""


def _check_fit(found: _Figures, gpu: bool) -> None:
    if found.memory_bytes is None or found.memory_limit_bytes is None:
        return
    found.fits = found.memory_bytes <= found.memory_limit_bytes
    if not found.fits:
        place = "GPU" if gpu else "machine"
        found.warnings.append(
            f"The training needs about {found.memory_bytes / 1e9:.1f} GB of memory, but the {place} has "
            f"{found.memory_limit_bytes / 1e9:.1f} GB. Lower training.micro_batch_size, model.context_length or the "
            "size of the model."
        )
