"""A model of the modern architecture is trained, resumed and continued like one of the reference architecture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import load_model
from common.config import LMConfig
from common.config.model import NANOCHAT
from common.errors import ConfigError
from common.model import TransformerLM
from common.model.block import _EAGER_STEPS, _TrainingSteps
from common.training.hooks import Outcome, StopRequest
from common.training.loss import summed_loss
from common.training.pretrain import pretrain
from tests.unit.common.model.architectures import GATED, small_config

Config = Callable[..., LMConfig]
Recorders = Callable[..., Any]
MODERN = {**NANOCHAT, "zero_init": True, "logit_softcap": 15.0}


def test_a_training_without_gates_has_no_modulation_and_resumes_exactly(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    """`modulation_fraction` is 0.5 in this configuration and has no effect."""
    config = make_config(model=MODERN)
    whole = recorder()
    assert pretrain(config, tmp_path / "whole", whole, data_dir=data_dir) is Outcome.COMPLETED
    for after in (5, 1):
        pretrain(config, tmp_path / "parts", recorder(StopRequest.DRAIN, after=after), data_dir=data_dir)
    assert pretrain(config, tmp_path / "parts", recorder(), data_dir=data_dir) is Outcome.COMPLETED
    expected, found = (load_model(tmp_path / name / "tiny_v1.0.0.safetensors") for name in ("whole", "parts"))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    assert expected.config == config.model and not expected.gates_trained
    losses = whole.series("Losses/Total")
    assert losses[6] < losses[1]
    raw = load_model(tmp_path / "whole/tiny_v1.0.0.pth")
    assert raw.config == config.model and torch.equal(raw.state_dict()["rope_cos"], expected.rope_cos)


def test_weights_of_another_architecture_are_refused_with_its_fields(
    make_config: Config, recorder: Recorders, data_dir: Path, tmp_path: Path
) -> None:
    short = {"max_steps": 1}
    pretrain(make_config(model=MODERN, training=short), tmp_path / "old", recorder(), data_dir=data_dir)
    weights = tmp_path / "old/tiny_v1.0.0.safetensors"
    config = make_config(model={**MODERN, "qk_norm": False, "zero_init": False, "dropout": 0.0}, training=short)
    with pytest.raises(ConfigError, match=r"its model has qk_norm True instead of False; set model\.\*"):
        pretrain(config, tmp_path / "new", recorder(), data_dir=data_dir, initial_checkpoint=weights)


@pytest.mark.filterwarnings("ignore")  # of torch.compile
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_compiled_blocks_give_the_loss_and_gradients_of_eager_ones(dropout: float) -> None:
    """The blocks are traced as for torch.compile, but not translated to C++, which would take half a minute."""
    torch.manual_seed(0)
    model = TransformerLM(small_config(**{**GATED, "dropout": dropout})).train()
    ids, m = torch.randint(53, (3, 12)), torch.rand(3, 1)

    def results() -> list[torch.Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        loss = summed_loss(model, ids, ids.roll(-1, 1), m)
        torch.autograd.backward(loss)
        return [loss.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]

    eager = results()
    traced = _TrainingSteps(*(torch.compile(step, dynamic=False, backend="aot_eager") for step in _EAGER_STEPS))
    for block in model.blocks:
        block._steps = traced
    torch.testing.assert_close(results(), eager, atol=1e-4, rtol=1e-4)
