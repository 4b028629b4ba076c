"""Chooses device, precision, compilation and number of CPU threads of a training from its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from common.config.lm import TrainingConfig
from common.errors import ConfigError


@dataclass(frozen=True)
class ComputeConfig:
    """Device, precision, compilation and number of CPU threads of one process."""

    device: torch.device
    precision: Literal["float32", "bf16", "fp16"]
    compiles: bool
    threads: int

    def autocast(self) -> torch.autocast:
        """Return the context manager for forward passes in mixed precision. It has no effect for float32."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "float32")

    def scaler(self) -> torch.amp.GradScaler:
        """Return a gradient scaler, which is active for fp16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return `function` compiled by torch.compile, or unchanged if compilation is off.

        On a CPU it is unchanged, because only the blocks of the model are compiled (`common.training.cpu_choice`).
        """
        return torch.compile(function, dynamic=False) if self.compiles and self.device.type != "cpu" else function

    def stored(self) -> dict[str, Any]:
        """Return what a checkpoint stores of the choice."""
        return {"device": self.device.type, "precision": self.precision, "compiled": self.compiles}


def select_device(name: str) -> torch.device:
    """Return the device for `name` (auto, cpu, cuda or cuda:N). Raises ConfigError if the device does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device '{name}' is invalid; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' is configured, but torch finds no CUDA device; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device '{name}' does not exist; this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device '{name}' is invalid; use auto, cpu, cuda or cuda:N")
    return device


def prepare_compute(config: TrainingConfig, stored: Mapping[str, Any] | None = None) -> ComputeConfig:
    """Choose device, precision and compilation; set the CPU threads of the process and allow TF32 on CUDA.

    `stored` is the choice in the checkpoint from which the training continues (`ComputeConfig.stored`). On a CPU, it
    replaces settings that are `auto`; without it they are float32 and no compilation, until `choose_on_cpu` has
    measured. Raises ConfigError for a device that does not exist, and for fp16 without CUDA.
    """
    device = select_device(config.device)
    cuda = device.type == "cuda"
    torch.set_num_threads(config.threads or os.cpu_count() or 1)
    if cuda:
        torch.set_float32_matmul_precision("high")
    precision = config.precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "float32"
    if precision == "fp16" and not cuda:
        raise ConfigError("precision fp16 needs CUDA (training.precision); use auto, float32 or bf16 on a CPU")
    compiles = config.compile == "on" or (config.compile == "auto" and cuda)
    if not cuda and stored is not None and stored.get("device") == "cpu":
        if config.precision == "auto":
            precision = stored["precision"]
        if config.compile == "auto":
            compiles = stored["compiled"]
    return ComputeConfig(device, precision, compiles, torch.get_num_threads())
