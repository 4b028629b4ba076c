"""A diverging training stops before its state is saved, and the error names a checkpoint from which to resume."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.artifacts.best import read_best
from common.checkpoint import CheckpointManager, load_model
from common.checkpoint.manager import read_info
from common.config import LMConfig, load_lm_config
from common.errors import DivergedError
from common.model import TransformerLM
from common.training import pretrain as loop
from common.training.evaluation import Validation
from common.training.hooks import Outcome, StopRequest
from common.training.pretrain import pretrain
from tests.paths import CASES
from tests.unit.common.training.diverging import sections, spoil_gradient
from tests.unit.non_finite import non_finite_files

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]


def spoil_validation(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the validation loss at step `at` NaN: the logits overflow only during this validation."""
    original, steps = loop.validate_corpus, count(0, 4)

    def validate(model: TransformerLM, *others: Any, **options: Any) -> Validation | None:
        if next(steps) == at:
            sound = model.output_projection.bias.detach().clone()
            with torch.no_grad():
                model.output_projection.bias.fill_(math.inf)
            try:
                return original(model, *others, **options)
            finally:
                with torch.no_grad():
                    model.output_projection.bias.copy_(sound)
        return original(model, *others, **options)

    monkeypatch.setattr(loop, "validate_corpus", validate)


def advised(error: DivergedError, experiment: Path) -> Path:
    """Return the checkpoint folder that the error message recommends."""
    found = re.search(rf"resume from {experiment.name}/(\S+),", error.message)
    assert found is not None, error.message
    return experiment / found[1]


def assert_resumes(
    checkpoint: Path, config: LMConfig, out: Path, recorder: Recorders, data_dir: Path, *, last: int = 12
) -> None:
    """Assert that a training can resume from the recommended checkpoint and writes only finite files."""
    hooks = recorder()
    outcome = pretrain(config, out, hooks, data_dir=data_dir, initial_checkpoint=checkpoint)
    assert outcome is Outcome.COMPLETED
    assert hooks.named("resumed")[0]["step"] == read_info(checkpoint).step
    assert hooks.progress[-1][0] == last
    assert non_finite_files(out) == []


def test_a_loss_that_explodes_between_log_lines_stops_the_training(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    sound = make_config(**sections(max_steps=6))
    assert pretrain(sound, tmp_path / "run", recorder(StopRequest.PAUSE, after=22), data_dir=data_dir) is Outcome.PAUSED
    before = read_best(tmp_path / "run/checkpoints")
    hooks = recorder()
    with pytest.raises(DivergedError, match=r"Lower training\.learning_rate") as raised:
        exploding = make_config(**sections(learning_rate=1e30, min_learning_rate=1e30, warmup_steps=0))
        pretrain(exploding, tmp_path / "run", hooks, data_dir=data_dir)
    assert raised.value.code == "training_diverged"
    assert "the loss is nan" in raised.value.message
    assert non_finite_files(tmp_path / "run") == []
    assert read_best(tmp_path / "run/checkpoints") == before is not None
    checkpoint = advised(raised.value, tmp_path / "run")
    assert hooks.withdrawn[-1][1] == checkpoint.name
    assert math.isnan(next(iter(hooks.series("Losses/Total").values()))), "the archive shows where training ended"
    assert not hooks.artifacts
    assert_resumes(checkpoint, make_config(**sections()), tmp_path / "next", recorder, data_dir)


def test_a_learning_rate_of_1e30_leaves_no_files_and_an_error(
    recorder: Recorders, data_dir: Path, tmp_path: Path, text_file: Path
) -> None:
    overrides = {"data": {"source": str(text_file)}, "training": {"device": "cpu", "threads": 1}}
    config = load_lm_config(CASES / "nan.yaml", overrides)
    hooks = recorder()
    with pytest.raises(DivergedError, match="start again from the beginning, because there is no earlier checkpoint"):
        pretrain(config, tmp_path, hooks, data_dir=data_dir)
    assert non_finite_files(tmp_path) == []
    assert CheckpointManager(tmp_path / "checkpoints", keep_last=1).list() == []
    assert hooks.withdrawn[-1][1] is None


@pytest.mark.parametrize("at", [6, 7])
def test_an_infinite_gradient_stops_the_training_before_the_update(
    at: int,
    make_config: Config,
    recorder: Recorders,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil_gradient(monkeypatch, at)
    hooks = recorder()
    with pytest.raises(DivergedError, match=rf"at update {at + 1}: the gradient norm is inf") as raised:
        pretrain(make_config(**sections()), tmp_path / "run", hooks, data_dir=data_dir)
    monkeypatch.undo()
    assert non_finite_files(tmp_path / "run") == []
    assert hooks.progress[-1][0] == at, "the update was not counted"
    checkpoint = advised(raised.value, tmp_path / "run")
    assert read_info(checkpoint).step == (4 if at == 6 else 6), "no training can start from the diverged state"
    assert_resumes(checkpoint, make_config(**sections()), tmp_path / "next", recorder, data_dir)


def test_the_same_folder_resumes_with_a_lower_rate_and_equals_a_training_that_never_diverged(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_gradient(monkeypatch, 7)
    config = make_config(**sections())
    with pytest.raises(DivergedError):
        pretrain(config, tmp_path / "run", recorder(), data_dir=data_dir)
    monkeypatch.undo()
    for name in ("run", "whole"):
        assert pretrain(config, tmp_path / name, recorder(), data_dir=data_dir) is Outcome.COMPLETED
    weights = [load_model(tmp_path / name / "tiny_v1.0.0.safetensors").state_dict() for name in ("run", "whole")]
    assert all(torch.equal(weights[0][name], tensor) for name, tensor in weights[1].items())


@pytest.mark.parametrize("keep_last", [1, 3])
@pytest.mark.parametrize("at", [8, 12])
def test_a_validation_loss_that_is_not_finite_stops_the_training(
    at: int,
    keep_last: int,
    make_config: Config,
    recorder: Recorders,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = sections()
    given["checkpoint"]["keep_last"] = keep_last
    if at == 12:  # the last step is validated with the final model

        def nan(*_: object, **__: object) -> float:
            return loop.require_finite("the validation loss", math.nan)

        monkeypatch.setattr("common.training.final_model.validate_corpus", nan)
    else:
        spoil_validation(monkeypatch, at)
    hooks = recorder()
    message = rf"at the validation after update {at}: the validation loss is nan"
    with pytest.raises(DivergedError, match=message) as raised:
        pretrain(make_config(**given), tmp_path / "run", hooks, data_dir=data_dir)
    monkeypatch.undo()
    assert non_finite_files(tmp_path / "run") == []
    assert hooks.artifacts == [] and not list(tmp_path.glob("run/*.pth"))
    checkpoint = advised(raised.value, tmp_path / "run")
    assert 4 <= read_info(checkpoint).step < at
    best = read_best(tmp_path / "run/checkpoints")
    assert best is not None and best.step < at
    assert_resumes(checkpoint, make_config(**given), tmp_path / "next", recorder, data_dir)


def test_one_host_read_per_update_checks_loss_and_gradient(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, ...]] = []
    original = torch.Tensor.tolist

    def tolist(self: Tensor) -> Any:
        reads.append(tuple(self.shape))
        return original(self)

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    config = make_config(training={"max_steps": 3, "modulation_fraction": 0.0}, evaluation={"every_steps": 100})
    pretrain(config, tmp_path, recorder(StopRequest.STOP, after=13), data_dir=data_dir)
    assert reads.count((2,)) == 3, "three updates of three micro-batches each"


def test_the_share_of_time_is_reported_under_a_time_limit(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    hooks = recorder()
    config = make_config(training={"max_steps": None, "epochs": 100_000, "max_seconds": 0.5})
    pretrain(config, tmp_path, hooks, data_dir=data_dir)
    assert hooks.time_shares == sorted(hooks.time_shares)
    assert hooks.time_shares[-1] == 1.0
    step, total = hooks.progress[-1]
    assert step / total < 0.5, "by steps alone, more than half of the training would remain"
