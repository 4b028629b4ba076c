"""TIDAL_GENERATOR_DEVICE: the error for a missing device names the device and the valid values."""

from __future__ import annotations

import sys

import pytest
import torch

from common.config import Settings
from common.errors import ConfigError
from services.generator.engine_child import set_up_device


def test_the_error_for_a_missing_device_names_it() -> None:
    with pytest.raises(ConfigError, match="is cuda:99, but torch finds"):
        set_up_device(Settings(_env_file=None, generator_device="cuda:99"))
    with pytest.raises(ConfigError, match="'gpu' is not auto, cpu, cuda or cuda:N"):
        set_up_device(Settings(_env_file=None, generator_device="gpu"))


def test_the_memory_limit_is_for_accelerators_only() -> None:
    interval = sys.getswitchinterval()
    try:
        device = set_up_device(Settings(_env_file=None, generator_device="cpu", generator_gpu_mb=64))
    finally:
        sys.setswitchinterval(interval)
    assert device == torch.device("cpu")
