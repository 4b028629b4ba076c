"""What a pretraining will need, predicted before its start, and what it has needed, measured at its end."""

from __future__ import annotations

from pydantic import Field

from .base import Reply


class MachinePrediction(Reply):
    """Memory and duration of a training on one kind of machine. Null figures are unknown; `notes` gives the reasons."""

    machine: str
    """Identifier of this kind of machine: processor, cores, GPU, and the versions of torch and Tidal."""
    description: str
    """The machine in words, for example "AMD EPYC, 2 cores"."""
    device: str
    """Where the training would run and need memory: cpu or cuda."""
    memory_bytes: int | None = None
    """Predicted peak: host memory of the trainer on a CPU, memory of the GPU on CUDA."""
    memory_limit_bytes: int | None = None
    """Memory of the machine, or of its GPU if the device is cuda."""
    fits: bool | None = None
    """Whether `memory_bytes` is within `memory_limit_bytes`."""
    duration_seconds: float | None = None
    """Predicted time from the start of the trainer to the end of the job, without waiting in the queue."""
    tokens_per_second: float | None = None
    """Predicted speed of the training steps, without validations."""
    phases: dict[str, float] = Field(default_factory=dict)
    """Predicted seconds of each phase: start, tokenise, training, validation, samples and saving."""
    basis: str = ""
    """What the figures follow from: earlier runs of the same shape, or the calibration of the machine."""
    warnings: list[str] = Field(default_factory=list)
    """Why the training would probably fail, for example because its memory does not fit."""
    notes: list[str] = Field(default_factory=list)
    """Assumptions behind the figures, and why figures are missing."""


class TrainingPrediction(Reply):
    """Predicted parameters, memory and duration of a pretraining."""

    parameters: int
    """Number of parameters of the model."""
    flops_per_token: float
    """FLOPs of forward and backward pass per token of a sequence as long as the context."""
    steps: int | None = None
    """Number of optimiser updates that remain; null if the size of the corpus is unknown."""
    tokens: int | None = None
    """Number of tokens in these updates."""
    machines: list[MachinePrediction] = Field(default_factory=list)
    """One prediction per kind of machine among the workers that could run the job."""
    notes: list[str] = Field(default_factory=list)
    """What is assumed or unknown on every machine."""


class TrainingMeasurement(Reply):
    """What a completed pretraining has needed, as its trainer measured it."""

    machine: str
    """Identifier of the kind of machine, as in `MachinePrediction`."""
    shape: str
    """Identifier of everything that determines speed and memory: model, batch sizes, device, precision, threads."""
    device: str
    precision: str
    compiled: bool
    """Whether torch.compile was used."""
    steps: int
    """Number of optimiser updates of the attempt that completed the job."""
    tokens: int
    """Number of tokens in these updates."""
    seconds: float
    """Duration of the attempt that completed the job, from the start of its trainer to the end."""
    training_seconds: float
    """The part of `seconds` that the steps took, without validations, samples and waiting for checkpoints."""
    tokens_per_second: float | None = None
    """Speed of the steps after the first one, which may include a compilation (of the first one if it is the only one);
    null if the attempt took no steps."""
    memory_bytes: int
    """Peak: anonymous host memory of the trainer and its child processes on a CPU, allocated memory of the GPU on
    CUDA."""
    resumed: bool = False
    """Whether the attempt continued from a checkpoint. Its duration is then only a part of the job's."""
