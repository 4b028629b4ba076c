"""NaN and infinity are never written, a file that contains them is never used, and fp16 skips overflowing steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.artifacts.best import BestCheckpoint, read_best, write_best
from common.checkpoint import CheckpointManager, load_model, save_model
from common.config import LMConfig
from common.errors import CheckpointError, DivergedError
from common.model import TransformerLM
from common.training.hooks import Outcome, StopRequest
from common.training.optimizer import LEAST_SCALE, clip_gradients, skip_step
from common.training.pretrain import pretrain
from tests.unit.common.training.diverging import sections

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]


def _parameter(gradient: float) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.full_like(model.weight, gradient)
    return model, torch.optim.SGD(model.parameters(), lr=1.0)


def test_fp16_gradients_that_overflow_are_skipped_until_scaling_is_not_the_cause() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    weights, scales = [], []
    with pytest.raises(DivergedError, match="the gradient norm is inf"):
        for _ in range(100):
            model, optimizer = _parameter(math.inf)
            norm = float(clip_gradients(model, optimizer, scaler, 1.0))
            weights.append(bool(model.weight.isfinite().all()))
            scales.append(scaler.get_scale())
            skip_step(optimizer, scaler, norm)
    assert all(weights)
    assert scales[0] == 1024.0 and scales[-1] < LEAST_SCALE <= scales[-2]


def test_without_a_scaler_a_gradient_that_overflows_is_never_skipped() -> None:
    model, optimizer = _parameter(math.nan)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(DivergedError, match="the gradient norm is nan"):
        skip_step(optimizer, scaler, float(clip_gradients(model, optimizer, scaler, 1.0)))


@pytest.mark.parametrize("where", ["weights", "optimizer"])
def test_no_checkpoint_is_written_from_what_is_not_finite(where: str, tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    bad = {"a": torch.tensor([1.0, math.nan])}
    weights = bad if where == "weights" else {"a": torch.ones(2)}
    state = {"optimizer": {"state": {0: {"exp_avg_sq": torch.tensor(math.inf)}}} if where == "optimizer" else {}}
    with pytest.raises(DivergedError, match="NaN or infinity"):
        manager.save(1, weights, state, meta={"kind": "lm"})
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_written_or_read_that_is_not_finite(make_config: Config, tmp_path: Path) -> None:
    model = TransformerLM(make_config().model)
    path = save_model(model, tmp_path / "model.pth")
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.inf
    for suffix in ("safetensors", "pth"):
        with pytest.raises(DivergedError, match="the weights hold NaN or infinity"):
            save_model(model, tmp_path / f"other.{suffix}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.pth", "model.pth.json"]
    path.with_name("model.pth.json").unlink()
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="use an earlier checkpoint"):
        load_model(path)


def test_a_checkpoint_of_an_older_version_that_holds_nan_is_passed_over_and_its_best_replaced(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(**sections(max_steps=8))
    pretrain(config, tmp_path, recorder(StopRequest.PAUSE, after=18), data_dir=data_dir)
    manager = CheckpointManager(tmp_path / "checkpoints", keep_last=3)
    sound = manager.latest()
    assert sound is not None
    weights, state = manager.load(sound)
    state["counters"]["best_validation_loss"] = state["counters"]["validation_loss"] = math.nan
    monkeypatch.setattr("common.checkpoint.manager.require_finite_state", lambda *_: None)
    next(iter(weights.values()))[:] = math.nan
    broken = manager.save(7, weights, state, meta=sound.meta)
    monkeypatch.undo()
    name = f"checkpoints/{sound.name}"
    (tmp_path / "checkpoints/best.json").write_text(
        f'{{"metric": "validation loss", "name": "{name}", "step": 4, "value": NaN}}', encoding="utf-8"
    )
    assert read_best(tmp_path / "checkpoints") is None
    hooks = recorder()
    assert pretrain(config, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    [skipped] = hooks.named("checkpoint_skipped")
    assert skipped["checkpoint"] == broken.name and "NaN or infinity" in skipped["reason"]
    best = read_best(tmp_path / "checkpoints")
    assert best is not None and math.isfinite(best.value)


def test_a_best_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the validation loss of a is nan"):
        write_best(tmp_path, BestCheckpoint("a", "validation loss", math.nan, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_with_nan_cannot_start_another_training(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.checkpoint.manager.require_finite_state", lambda *_: None)
    weights = TransformerLM(make_config().model).state_dict()
    next(iter(weights.values()))[:] = math.nan
    info = CheckpointManager(tmp_path, keep_last=1).save(3, weights, {}, meta={"kind": "lm"})
    with pytest.raises(CheckpointError, match="use an earlier checkpoint"):
        pretrain(make_config(), tmp_path / "out", recorder(), data_dir=data_dir, initial_checkpoint=info.path)
