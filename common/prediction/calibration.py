"""The calibration of a machine: the measured costs from which memory and duration of a training are predicted.

`common.training.calibrate` measures it in about ten seconds. It is stored in the data folder, one file per kind of
machine, and a worker sends it with its heartbeats, so that the api needs no access to that folder.

All costs are of the real training code: forward and backward pass with dropout, without torch.compile.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from common.files import write_atomic, write_text
from common.prediction.machine import Machine

CODE: Final = 2
"""Version of the measuring code. Increase it when the training code or the meaning of a field changes, so that older
calibrations are measured again."""
FOLDER: Final = "calibration"
"""Folder of the calibrations within the data folder."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LinearCost(_Record):
    """Seconds as a function of the number of tokens in a micro-batch: `fixed` + `per_token` · tokens."""

    fixed: float
    per_token: float

    def seconds(self, tokens: float) -> float:
        """Return the seconds for a micro-batch of `tokens` tokens."""
        return self.fixed + self.per_token * tokens


class BlockCost(_Record):
    """The cost of one transformer block of `width` D with F = 4 D, without the part of attention that grows with T."""

    width: int
    training: LinearCost
    """Forward and backward pass."""


class HeadCost(_Record):
    """The cost of everything outside the blocks, for a vocabulary of `vocabulary` tokens and width D: embedding, final
    layer norm, head and loss."""

    width: int
    vocabulary: int
    training: LinearCost
    """Forward and backward pass."""


class MemoryCost(_Record):
    """The memory of a training process, in bytes."""

    base: int
    """Memory of the process before it builds a model."""
    per_width: float
    """Bytes that the backward pass needs per token and layer, for each of the D channels of the residual stream."""
    per_ffn: float
    """Bytes that the backward pass needs per token and layer, for each of the F channels of the feed-forward layer."""
    per_attention: float
    """Bytes that the backward pass needs per token and layer, for each head and each of the T positions."""
    embedding: float
    """Bytes that the backward pass needs outside the blocks, per token and channel."""
    head_gradients: float
    """Number of float32 copies of the head's gradient (V D numbers each) in addition to the gradient itself."""
    head_per_logit: float
    """Bytes that the loss needs for each logit that it computes at a time."""
    head_logits: int | None
    """Largest number of logits that the loss computes at a time; None if it computes those of all tokens at once."""


class Calibration(_Record):
    """The measured costs of one kind of machine."""

    code: int = CODE
    machine: Machine
    measured_at: datetime
    memory_bytes: int
    """Memory that programs may use on this machine, in bytes."""
    device_memory_bytes: int | None = None
    """Memory of the GPU in bytes; None without a GPU."""
    threads: int
    """Number of CPU threads during the measurement."""
    precision: Literal["float32", "bf16", "fp16"]
    """Number format during the measurement."""
    gemm_flops_per_second: float
    """Highest measured rate of a large matrix product in the format `precision`, in FLOPs per second."""
    blocks: tuple[BlockCost, ...]
    """Costs of a block at several widths, in ascending order."""
    heads: tuple[HeadCost, ...]
    """Costs of the head at several widths, in ascending order."""
    attention_base: float
    """Seconds that attention takes in addition to `blocks`, per token, head and position of the sequence, for a head
    width K of 0."""
    attention_per_channel: float
    """Increase of `attention_base` for each of the K channels of a head."""
    evaluation_block: float
    """Duration of a block in the forward pass of a validation, as a share of forward and backward pass in training."""
    evaluation_head: float
    """Duration of the head in the forward pass of a validation, as a share of forward and backward pass in training."""
    update_seconds_per_parameter: float
    """Seconds per parameter for clipping and the optimiser's update."""
    decode_fixed: float
    """The part of the seconds per generated token of a sample text that does not depend on the model."""
    decode_per_layer: float
    """Seconds per generated token and layer of the sample texts."""
    decode_per_weight: float
    """Seconds per generated token and per weight that takes part in a matrix product."""
    start_seconds: float
    """Seconds from the start of the process until torch is loaded."""
    tokenise_bytes_per_second: float
    """Bytes of text that are tokenised per second."""
    bytes_per_token: float
    """Bytes of text per token in the built-in stories."""
    builtin_bytes: int
    """Size of the corpus `builtin:stories` as text, in bytes."""
    disk_bytes_per_second: float
    """Rate at which checkpoints are written to the data folder's disk."""
    memory: MemoryCost


def calibration_path(data_dir: Path, machine: Machine) -> Path:
    """Return the path of the calibration of this kind of machine."""
    return data_dir / FOLDER / f"{machine.key}.json"


def read_calibration(data_dir: Path, machine: Machine) -> Calibration | None:
    """Return the stored calibration of this kind of machine; None without one for this `CODE`."""
    try:
        text = calibration_path(data_dir, machine).read_text(encoding="utf-8")
    except OSError:
        return None
    return parse_calibration(text)


def parse_calibration(text: str) -> Calibration | None:
    """Return the calibration that `text` contains; None if it is damaged or has another `CODE`."""
    try:
        found = Calibration.model_validate_json(text)
    except ValidationError:
        return None
    return found if found.code == CODE else None


def write_calibration(data_dir: Path, calibration: Calibration) -> Path:
    """Store the calibration atomically and return its path. Raises StorageError when it cannot be written."""
    path = calibration_path(data_dir, calibration.machine)
    text = json.dumps(calibration.model_dump(mode="json"), indent=1)
    write_atomic(path, partial(write_text, text=text))
    return path
