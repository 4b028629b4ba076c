"""The average of the weights follows its formula, and is what validation, checkpoints and the final model use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.checkpoint import CheckpointManager, load_model
from common.config import LMConfig, ModelConfig
from common.errors import DivergedError
from common.metrics import names
from common.model import TransformerLM
from common.training.device import prepare_compute
from common.training.evaluation import validate
from common.training.hooks import Outcome, StopRequest
from common.training.loading import load_corpus
from common.training.pretrain import pretrain
from common.training.weight_average import WeightAverage
from tests.unit.common.training.diverging import sections, spoil_gradient

SHAPE = ModelConfig(vocab_size=30, d_model=8, num_layers=1, num_heads=2, ffn_dim=8, context_length=8)


def test_the_average_equals_an_explicit_sum() -> None:
    torch.manual_seed(0)
    model = TransformerLM(SHAPE)
    average = WeightAverage(model, 0.4)
    history = [model.final_layer_norm.weight.detach().clone().numpy().astype(np.float64)]
    for step in range(1, 7):
        with torch.no_grad():
            model.final_layer_norm.weight.add_(torch.randn(8))
        average.update(step)
        history.append(model.final_layer_norm.weight.detach().clone().numpy().astype(np.float64))
    # Weight of value i: (1 − β_i) times the β of all later steps; of the initial value: the product of all β.
    betas = [min(0.4, (1 + step) / (10 + step)) for step in range(1, 7)]
    shares = [np.prod(betas)] + [(1 - betas[i]) * np.prod(betas[i + 1 :]) for i in range(6)]
    assert sum(shares) == pytest.approx(1.0)
    expected = sum(share * value for share, value in zip(shares, history, strict=True))
    assert average.model.final_layer_norm.weight.numpy() == pytest.approx(expected, abs=1e-6)


def test_building_an_average_uses_no_random_numbers_of_the_training() -> None:
    model = TransformerLM(SHAPE)
    before = torch.get_rng_state()
    WeightAverage(model, 0.9)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_checkpoint_and_final_model_use_the_average(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    averaged, plain = make_config(training={"average_decay": 0.99}), make_config()
    with_average, without = recorder(), recorder()
    assert pretrain(averaged, tmp_path / "with", with_average, data_dir=data_dir) is Outcome.COMPLETED
    assert pretrain(plain, tmp_path / "without", without, data_dir=data_dir) is Outcome.COMPLETED
    assert with_average.series(names.LOSS) == without.series(names.LOSS), "the training itself does not change"
    last = with_average.series(names.VALIDATION_LOSS)[6]
    assert last != without.series(names.VALIDATION_LOSS)[6]
    info = CheckpointManager(tmp_path / "with/checkpoints", keep_last=3).list()[-1]
    corpus = load_corpus(averaged.data, data_dir, recorder())
    for path in (info.path, tmp_path / "with/tiny_v1.0.0.safetensors", tmp_path / "with/tiny_v1.0.0.pth"):
        model = load_model(path)
        assert model.gates_trained
        found = validate(model, corpus.validation, averaged.evaluation, prepare_compute(averaged.training))
        assert found is not None
        assert found.loss == pytest.approx(last, abs=1e-6), path.name


def test_an_average_can_begin_and_end_at_a_resume(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    averaged, plain = make_config(training={"average_decay": 0.99}), make_config()
    for start, end in ((averaged, plain), (plain, averaged)):
        directory = tmp_path / ("ends" if end is plain else "begins")
        pretrain(start, directory, recorder(StopRequest.PAUSE, after=13), data_dir=data_dir)
        hooks = recorder()
        assert pretrain(end, directory, hooks, data_dir=data_dir) is Outcome.COMPLETED
        whole = recorder()
        pretrain(plain, tmp_path / "whole", whole, data_dir=data_dir, resume=False)
        losses = hooks.series(names.LOSS)
        assert losses == {step: loss for step, loss in whole.series(names.LOSS).items() if step in losses}


def test_a_validation_of_the_average_does_not_prove_the_trained_weights(
    make_config: Callable[..., LMConfig],
    recorder: Callable[..., Any],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil_gradient(monkeypatch, 8)  # the average after update 8 is the best, but the update after it fails
    given = sections(average_decay=0.99)
    given["checkpoint"]["keep_last"] = 1
    hooks = recorder()
    with pytest.raises(DivergedError, match="at update 9"):
        pretrain(make_config(**given), tmp_path, hooks, data_dir=data_dir)
    assert hooks.series(names.VALIDATION_LOSS)[8] < hooks.series(names.VALIDATION_LOSS)[4]
    resumed_from = CheckpointManager(tmp_path / "checkpoints", keep_last=1).latest(before=8)
    assert resumed_from is not None and resumed_from.step == 6


def test_best_averages_do_not_fill_the_disk(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    given = sections(average_decay=0.99)
    given["checkpoint"] = {"keep_last": 1, "every_seconds": 3600.0}
    given["evaluation"]["every_steps"] = 1
    hooks = recorder(StopRequest.PAUSE, after=42)
    hooks.on_progress = lambda _: hooks.save.__self__.writer.wait_until_idle()
    pretrain(make_config(**given), tmp_path, hooks, data_dir=data_dir)
    assert len(hooks.checkpoints) > 5
    # The newest proven one, the best one if it is newer, and the last one.
    assert len(CheckpointManager(tmp_path / "checkpoints", keep_last=1).list()) <= 3


def test_continuing_an_average_without_one_is_reported_as_inexact(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    averaged = make_config(training={"average_decay": 0.99})
    pretrain(averaged, tmp_path / "old", recorder(StopRequest.PAUSE, after=13), data_dir=data_dir)
    [*_, newest] = CheckpointManager(tmp_path / "old/checkpoints", keep_last=1).list()
    hooks = recorder()
    pretrain(make_config(), tmp_path / "new", hooks, data_dir=data_dir, initial_checkpoint=newest.path)
    [inexact] = hooks.named("resume_inexact")
    assert inexact["reasons"] == ["the weights are the average, but the optimizer state is that of the trained weights"]
