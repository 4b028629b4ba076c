"""Describes a prediction in lines of text for the command line."""

from __future__ import annotations

from common.words import span
from tidal_client.wire.prediction import MachinePrediction, TrainingMeasurement, TrainingPrediction


def describe_prediction(prediction: TrainingPrediction) -> list[str]:
    """Return the lines of a prediction: the model and its work, then memory and duration on each kind of machine."""
    work = "" if prediction.steps is None else f", {prediction.steps:,} steps"
    tokens = "" if prediction.tokens is None else f", {prediction.tokens:,} tokens"
    lines = [f"{prediction.parameters:,} parameters{work}{tokens}"]
    for machine in prediction.machines:
        lines += _describe_machine(machine)
    return lines + prediction.notes


def describe_measurement(measured: TrainingMeasurement, prediction: MachinePrediction | None) -> list[str]:
    """Return the lines that compare what a training has needed with its prediction, if there is one."""
    duration = memory = ""
    if prediction is not None and prediction.duration_seconds is not None and not measured.resumed:
        duration = f" (predicted {span(prediction.duration_seconds)})"
    if prediction is not None and prediction.memory_bytes is not None:
        memory = f" (predicted {_gigabytes(prediction.memory_bytes)})"
    return [
        f"duration {span(measured.seconds)}{duration}",
        f"peak memory {_gigabytes(measured.memory_bytes)}{memory}",
    ]


def _describe_machine(machine: MachinePrediction) -> list[str]:
    known = []
    if machine.memory_bytes is not None:
        limit = "" if machine.memory_limit_bytes is None else f" of {_gigabytes(machine.memory_limit_bytes)}"
        known.append(f"about {_gigabytes(machine.memory_bytes)}{limit} memory")
    if machine.duration_seconds is not None:
        known.append(f"about {span(machine.duration_seconds)}")
    if machine.tokens_per_second is not None:
        known.append(f"{machine.tokens_per_second:,.0f} tokens/s")
    figures = ", ".join(known) or "memory and duration unknown"
    basis = f" ({machine.basis})" if machine.basis else ""
    return [f"{machine.description}: {figures}{basis}", *machine.warnings, *machine.notes]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
