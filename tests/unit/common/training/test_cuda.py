"""Pretraining on a CUDA device, which `StandInDevice` replaces: the host waits for the device once per update.

Autocast for CUDA has no effect on the stand-in; `test_pretrain.py` compares bfloat16 with float32 on the CPU.
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

MICRO_BATCHES = 3
"""Micro-batches of an update."""
OUTSIDE_STEPS = (
    "common/checkpoint/",
    "common/training/preparation.py:prepare_pretraining:",
    "common/training/training_state.py:_describe:",
    "common/training/weight_average.py:__init__:",
)
"""Places that may wait for the device because they do not belong to a step: checkpoints, final model, start."""


def train(
    make_config: Callable[..., LMConfig], data_dir: Path, directory: Path, *, device: str, steps: int, **training: Any
) -> tuple[Recorder, Counter[str]]:
    """Train the tiny model for `steps` updates, with a validation after every second one. Return hooks and waits."""
    config = make_config(
        model={"dropout": 0.0},
        evaluation={"sample_tokens": 1, "max_batches": 1},
        training={"max_steps": steps, "device": device, "compile": "off", "precision": "float32"} | training,
    )
    hooks = Recorder()
    if device == "cpu":
        assert pretrain.pretrain(config, directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
        return hooks, Counter()
    with StandInDevice() as stand_in:
        assert pretrain.pretrain(config, directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
    return hooks, stand_in.waits


def waits_of_steps(waits: Counter[str]) -> Counter[str]:
    """Return the waits by function, without those of `OUTSIDE_STEPS`."""
    by_function: Counter[str] = Counter()
    for place, count in waits.items():
        if not place.startswith(OUTSIDE_STEPS):
            by_function[place.split(":")[1]] += count
    return by_function


MUON = {"optimizer": "muon", "average_decay": 0.9}


@pytest.mark.parametrize("chosen", [{}, MUON], ids=["AdamW", "Muon and an average"])
def test_the_host_waits_once_per_update_and_the_losses_are_those_of_the_cpu(
    chosen: dict[str, Any], make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path
) -> None:
    on_cpu, _ = train(make_config, data_dir, tmp_path / "cpu", device="cpu", steps=3, **chosen)
    on_device, waits = train(make_config, data_dir, tmp_path / "cuda", device="cuda:0", steps=3, **chosen)
    # There are three validations: before the first step, after the second and at the end.
    assert waits_of_steps(waits) == {"_take_step": 3, "_sums": 3}
    for name in (names.LOSS, names.GRADIENT_NORM, names.VALIDATION_LOSS):
        assert len(on_cpu.series(name)) == 3
        assert on_device.series(name) == pytest.approx(on_cpu.series(name), rel=1e-4), name


@pytest.mark.parametrize("chosen", [{}, MUON], ids=["AdamW", "Muon and an average"])
def test_scaled_gradients_of_fp16_need_no_further_wait(
    chosen: dict[str, Any], make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path
) -> None:
    _, waits = train(make_config, data_dir, tmp_path, device="cuda:0", steps=2, precision="fp16", **chosen)
    assert waits_of_steps(waits) == {"_take_step": 2, "_sums": 2}


def test_a_planted_read_of_a_value_is_found(
    make_config: Callable[..., LMConfig], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = preparation.summed_loss

    def reading(*arguments: Any) -> Tensor:
        loss = plain(*arguments)
        assert math.isfinite(loss.item())
        return loss

    monkeypatch.setattr(preparation, "summed_loss", reading)
    _, waits = train(make_config, data_dir, tmp_path, device="cuda:0", steps=1)
    assert waits_of_steps(waits)["<lambda>"] == MICRO_BATCHES


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
        _, waits = train(make_config, data_dir, tmp_path, device="cuda:0", steps=1, modulation_fraction=1.0)
        assert waits_of_steps(waits)["_take_step"] == 1 + 3 * MICRO_BATCHES  # ids, targets and modulation
    else:
        with pytest.raises(MixedDevices):
            train(make_config, data_dir, tmp_path, device="cuda:0", steps=1)
