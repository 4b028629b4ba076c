"""Pretraining on a CUDA device, which `StandInDevice` replaces: the host waits for the device once per update.

Also pretraining in bfloat16, whose kernels on the CPU stand for those of CUDA.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from common.config import LMConfig
from common.metrics import names
from common.training import preparation, pretrain
from common.training.hooks import Outcome
from tests.stand_in_device import MixedDevices, StandInDevice
from tests.unit.common.training.conftest import Recorder

STEPS, MICRO_BATCHES = 3, 3
ONCE_PER_RUN = {"prepare_pretraining", "host_copy", "save_model", "write_final_model", "generate_samples", "_write"}
"""Functions that may wait for the device because they do not belong to a step: start, checkpoints, final model."""


def train(
    make_config: Callable[..., LMConfig], data_dir: Path, directory: Path, *, device: str, **training: Any
) -> tuple[Recorder, Counter[str]]:
    """Train the tiny model for `STEPS` updates, with a validation after every second one. Return hooks and waits."""
    config = make_config(
        model={"dropout": 0.0},
        evaluation={"sample_tokens": 1, "max_batches": 1},
        training={"max_steps": STEPS, "device": device, "compile": "off", "precision": "float32"} | training,
    )
    hooks = Recorder()
    if device == "cpu":
        assert pretrain.pretrain(config, directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
        return hooks, Counter()
    with StandInDevice() as stand_in:
        assert pretrain.pretrain(config, directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
    return hooks, stand_in.waits


def waits_of_steps(waits: Counter[str]) -> Counter[str]:
    """Return the waits by function, without those of functions that do not belong to a step."""
    by_function: Counter[str] = Counter()
    for place, count in waits.items():
        _, function, _ = place.split(":", 2)
        by_function[function] += count
    return Counter({function: count for function, count in by_function.items() if function not in ONCE_PER_RUN})


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_the_host_waits_once_per_update_and_once_per_validation(
    make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path, precision: str
) -> None:
    _, waits = train(make_config, data_dir, tmp_path, device="cuda:0", precision=precision)
    validations = 3  # before the first step, after the second and at the end
    assert waits_of_steps(waits) == {"_take_step": STEPS, "validation_loss": validations}


def test_losses_are_those_of_the_cpu(make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path) -> None:
    on_cpu, _ = train(make_config, data_dir, tmp_path / "cpu", device="cpu")
    on_device, _ = train(make_config, data_dir, tmp_path / "cuda", device="cuda:0")
    for name in (names.LOSS, names.GRADIENT_NORM, names.VALIDATION_LOSS):
        assert on_device.series(name) == pytest.approx(on_cpu.series(name), rel=1e-4), name
    assert len(on_cpu.series(names.LOSS)) == STEPS


def test_a_planted_read_of_a_value_is_found(
    make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = preparation.summed_loss

    def reading(*arguments: Any) -> Tensor:
        loss = plain(*arguments)
        assert math.isfinite(loss.item())
        return loss

    monkeypatch.setattr(preparation, "summed_loss", reading)
    _, waits = train(make_config, data_dir, tmp_path, device="cuda:0")
    assert waits_of_steps(waits)["<lambda>"] == STEPS * MICRO_BATCHES


@pytest.mark.parametrize("planted", ["an ordinary copy", "no copy"])
def test_a_batch_that_is_copied_with_a_wait_or_not_at_all_is_found(
    make_config: Callable[..., LMConfig],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    planted: str,
) -> None:
    copies = planted == "an ordinary copy"
    monkeypatch.setattr(pretrain, "to_device", lambda x, device: x.to(device) if copies else x)
    if copies:
        _, waits = train(make_config, data_dir, tmp_path, device="cuda:0", modulation_fraction=1.0)
        assert waits_of_steps(waits)["_take_step"] == STEPS + 3 * STEPS * MICRO_BATCHES
    else:
        with pytest.raises(MixedDevices):
            train(make_config, data_dir, tmp_path, device="cuda:0")


def test_bfloat16_gives_losses_near_those_of_float32(
    make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path
) -> None:
    plain, _ = train(make_config, data_dir, tmp_path / "float32", device="cpu")
    narrow, _ = train(make_config, data_dir, tmp_path / "bf16", device="cpu", precision="bf16")
    for name in (names.LOSS, names.VALIDATION_LOSS):
        assert narrow.series(name) == pytest.approx(plain.series(name), rel=0.01), name
        assert narrow.series(name) != plain.series(name), name
