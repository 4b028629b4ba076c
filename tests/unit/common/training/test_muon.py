"""Muon's updates are those of a slow implementation in NumPy, AdamW's are torch's, and a resume changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from common.checkpoint import load_model
from common.config import LMConfig, ModelConfig, TrainingConfig, load_lm_config
from common.errors import ConfigError
from common.model import TransformerLM
from common.training.hooks import Outcome, StopRequest
from common.training.muon import MuonWithAdamW, orthogonalize
from common.training.optimizer import block_matrices, make_optimizer, set_rates
from common.training.pretrain import pretrain

Array = NDArray[np.float64]
SHAPE = ModelConfig(vocab_size=40, d_model=8, num_layers=2, num_heads=2, ffn_dim=16, context_length=8)


def muon_updates(weight: Array, gradients: list[Array], rate: float, decay: float) -> Array:
    """Return `weight` after Muon's updates, computed in float64 as in the text of the publications."""
    average = np.zeros_like(weight)
    for gradient in gradients:
        average = 0.95 * average + 0.05 * gradient
        x = 0.95 * average + 0.05 * gradient
        x = x / np.sqrt((x * x).sum())
        for _ in range(5):
            inner = x @ x.T
            x = 3.4445 * x - 4.7750 * (inner @ x) + 2.0315 * (inner @ inner @ x)
        weight = weight * (1 - rate * decay) - rate * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_three_updates_equal_those_computed_in_numpy(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(size=shape), random.normal(size=shape)
    gradients = [(random.normal(size=shape), random.normal(size=shape)) for _ in range(3)]
    parameters = [nn.Parameter(torch.tensor(weight, dtype=torch.float32)) for weight in (first, second)]
    optimizer = MuonWithAdamW(parameters, [], [], lr=0.5, matrix_lr=0.05, weight_decay=0.3, betas=(0.9, 0.95))
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    for number, weight in enumerate((first, second)):
        expected = muon_updates(weight, [step[number] for step in gradients], 0.05, 0.3)
        assert parameters[number].detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_a_closure_is_called_with_gradients_before_the_update() -> None:
    weight = np.random.default_rng(3).normal(size=(4, 9))
    parameter = nn.Parameter(torch.tensor(weight, dtype=torch.float32))
    optimizer = MuonWithAdamW([parameter], [], [], lr=0.5, matrix_lr=0.05, weight_decay=0.3, betas=(0.9, 0.95))

    def closure() -> float:
        loss = parameter.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert optimizer.step(closure) == pytest.approx(float((weight * weight).sum()), rel=1e-5)
    expected = muon_updates(weight, [2 * weight], 0.05, 0.3)
    assert parameter.detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_an_update_has_nearly_equal_singular_values() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 12, 30)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_other_parameters_are_updated_as_by_torchs_adamw() -> None:
    torch.manual_seed(1)
    ours, reference = (
        [nn.Parameter(torch.arange(12.0).view(3, 4) / 7), nn.Parameter(torch.arange(5.0))] for _ in range(2)
    )
    mixed = MuonWithAdamW([], ours[:1], ours[1:], lr=0.01, matrix_lr=1.0, weight_decay=0.1, betas=(0.9, 0.95))
    plain = torch.optim.AdamW(
        [{"params": reference[:1], "weight_decay": 0.1}, {"params": reference[1:], "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for _ in range(4):
        for one, other in zip(ours, reference, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        mixed.step()
        plain.step()
    for one, other in zip(ours, reference, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)


def test_muon_gets_the_matrices_of_the_blocks_and_every_parameter_has_one_group() -> None:
    model = TransformerLM(SHAPE)
    optimizer = make_optimizer(model, TrainingConfig(optimizer="muon"))
    by_id = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [sorted(by_id[id(parameter)] for parameter in group["params"]) for group in optimizer.param_groups]
    layer = ("q_proj", "k_proj", "v_proj", "out_proj", "ffn.0", "ffn.3")
    assert groups[0] == sorted(f"transformer_blocks.{i}.{name}.weight" for i in (0, 1) for name in layer)
    assert "token_embeddings.weight" in groups[1]
    assert any("attn_gate" in name for name in groups[1])
    assert all(name.endswith("bias") or "norm" in name or ".ln" in name for name in groups[2])
    assert sorted(name for group in groups for name in group) == sorted(by_id.values())
    assert len(block_matrices(model)) == 12


def test_rates_and_weight_decay_follow_the_training() -> None:
    model = TransformerLM(SHAPE)
    config = TrainingConfig(
        optimizer="muon", learning_rate=0.01, matrix_learning_rate=0.03, weight_decay=0.4, final_weight_decay=0.0
    )
    optimizer = make_optimizer(model, config)
    set_rates(optimizer, config, 0.005, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.015, 0.005, 0.005])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.3, 0.3, 0.0])


def test_a_learning_rate_for_matrices_needs_muon() -> None:
    with pytest.raises(ConfigError, match="has no effect with optimizer adamw"):
        load_lm_config(overrides={"training": {"matrix_learning_rate": 0.1}})


@pytest.mark.parametrize(
    ("more", "after"),
    [
        ({}, 13),
        ({"average_decay": 0.9}, 13),
        # Batches of 2, 2, 2, 4, 4 and 8: the pause is in the fifth update, whose micro-batches have 2 sequences.
        ({"initial_batch_size": 2, "effective_batch_size": 8, "batch_growth_ratio": 0.8}, 10),
    ],
)
def test_a_paused_training_with_muon_resumes_exactly(
    more: dict[str, Any],
    after: int,
    make_config: Callable[..., LMConfig],
    recorder: Callable[..., Any],
    data_dir: Path,
    tmp_path: Path,
) -> None:
    config = make_config(training={"optimizer": "muon", "schedule": "wsd", **more})
    assert pretrain(config, tmp_path / "whole", recorder(), data_dir=data_dir) is Outcome.COMPLETED
    paused = recorder(StopRequest.PAUSE, after=after)
    assert pretrain(config, tmp_path / "parts", paused, data_dir=data_dir) is Outcome.PAUSED
    resumed = recorder()
    assert pretrain(config, tmp_path / "parts", resumed, data_dir=data_dir) is Outcome.COMPLETED
    assert not resumed.named("resume_inexact")
    whole, parts = (load_model(tmp_path / name / "tiny_v1.0.0.safetensors").state_dict() for name in ("whole", "parts"))
    for name, expected in whole.items():
        assert torch.equal(parts[name], expected), name


def test_a_resume_with_another_optimizer_starts_it_without_history(
    make_config: Callable[..., LMConfig], recorder: Callable[..., Any], data_dir: Path, tmp_path: Path
) -> None:
    pretrain(make_config(), tmp_path, recorder(StopRequest.PAUSE, after=13), data_dir=data_dir)
    hooks = recorder()
    changed = make_config(training={"optimizer": "muon"})
    assert pretrain(changed, tmp_path, hooks, data_dir=data_dir) is Outcome.COMPLETED
    assert hooks.named("resume_inexact")[0]["reasons"] == [
        "the optimizer was adamw, is muon, and starts without history"
    ]
