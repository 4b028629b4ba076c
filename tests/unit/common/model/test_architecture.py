"""The options of the architecture compute their formulas, in every way that the model can be called."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from common.config.model import NANOCHAT, ModelConfig
from common.model import TransformerLM
from common.training.loss import summed_loss
from tests.unit.common.model.architectures import ALONE, GATED, MODERN, small_config

torch.set_num_threads(1)
EVERY = [{}, *ALONE, MODERN, GATED]


def small_model(options: dict[str, Any]) -> TransformerLM:
    """Return a seeded model in float64 whose attention, gates and logits are far from uniform."""
    torch.manual_seed(0)
    model = TransformerLM(small_config(**options)).double()
    with torch.no_grad():
        model.token_embeddings.weight.mul_(20)
        model.output_projection.weight.mul_(60)
        for name, parameter in model.named_parameters():
            if "_proj.weight" in name or "ffn" in name:
                parameter.mul_(2)
            if parameter.dim() == 1 or "gate.net.2" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def textbook_logits(model: TransformerLM, ids: Tensor, m: Tensor | None) -> Tensor:
    """Return the logits, written down once more from the formulas, one position at a time."""
    c, weights = model.config, model.state_dict()
    K = c.d_model // c.num_heads

    def rms(x: Tensor) -> Tensor:
        return x / math.sqrt(sum(float(value) ** 2 for value in x) / len(x) + 1e-6)

    def norm(x: Tensor, name: str) -> Tensor:
        if c.norm == "rmsnorm":
            return rms(x)
        centred = x - x.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return weights[f"{name}.weight"] @ x + (weights[f"{name}.bias"] if c.bias else 0.0)

    def gate(x: Tensor, name: str, m: Tensor | None) -> Tensor:
        if m is None or not c.gates:
            return x
        inner = weights[f"{name}.net.0.weight"] @ m + weights[f"{name}.net.0.bias"]
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        return x / (1 + (-(weights[f"{name}.net.2.weight"] @ inner + weights[f"{name}.net.2.bias"])).exp())

    def head(x: Tensor, number: int, position: int) -> Tensor:
        x = x[number * K : (number + 1) * K]
        angles = position * c.rope_theta ** (-2 * torch.arange(K // 2, dtype=torch.float64) / K)
        a, b = x[: K // 2], x[K // 2 :]
        x = torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()))
        return rms(x) if c.qk_norm else x

    logits = torch.zeros(*ids.shape, c.vocab_size, dtype=torch.float64)
    for row, tokens in enumerate(ids):
        mod = None if m is None else m[row]
        states = [weights["token_embeddings.weight"][token] for token in tokens]
        states = [rms(x) if c.embedding_norm else x for x in states]
        for layer in range(c.num_layers):
            block = f"transformer_blocks.{layer}"
            inputs = [norm(x, f"{block}.ln1") for x in states]
            for t in range(len(states)):
                parts = []
                for number in range(c.num_heads):
                    query = head(linear(inputs[t], f"{block}.q_proj"), number, t)
                    keys = [head(linear(inputs[s], f"{block}.k_proj"), number, s) for s in range(t + 1)]
                    shares = torch.stack([query @ key for key in keys]).div(math.sqrt(K)).softmax(0)
                    part = slice(number * K, (number + 1) * K)
                    parts.append(sum(p * linear(inputs[s], f"{block}.v_proj")[part] for s, p in enumerate(shares)))
                attended = linear(torch.cat(parts), f"{block}.out_proj")
                states[t] = states[t] + gate(attended, f"{block}.attn_gate", mod)
            for t, x in enumerate(states):
                hidden = linear(norm(x, f"{block}.ln2"), f"{block}.ffn.0")
                if c.activation == "relu2":
                    hidden = hidden.clamp(min=0) ** 2
                else:
                    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
                states[t] = x + gate(linear(hidden, f"{block}.ffn.3"), f"{block}.ffn_gate", mod)
        for t, x in enumerate(states):
            z = linear(norm(x, "final_layer_norm"), "output_projection")
            logits[row, t] = z if c.logit_softcap is None else c.logit_softcap * torch.tanh(z / c.logit_softcap)
    return logits


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_logits_are_those_of_the_formulas(options: dict[str, Any]) -> None:
    model = small_model(options).eval()
    ids = torch.randint(53, (2, 5))
    m = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    for modulation in (None, m) if model.config.gates else (None,):
        with torch.no_grad():
            found = model(ids, modulation)
        # The rotary tables are float32.
        torch.testing.assert_close(found, textbook_logits(model, ids, modulation), atol=1e-4, rtol=1e-5)
    assert model.config.changed_architecture() == options


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_training_on_a_cpu_has_the_loss_and_the_gradients_of_autograd(options: dict[str, Any]) -> None:
    """The training path has backward passes of its own; the evaluation path uses those of torch."""
    model = small_model(options)
    ids, targets = torch.randint(53, (2, 3, 9)).unbind()
    m = torch.rand(3, 1, dtype=torch.float64) if model.config.gates else None
    found = summed_loss(model.train(), ids, targets, m)
    torch.autograd.backward(found * 0.5)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = cross_entropy(model.eval()(ids, m).flatten(0, 1), targets.flatten(), reduction="sum")
    torch.autograd.backward(expected * 0.5)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-8, rtol=1e-8, msg=name)
    assert float(model.get_parameter("transformer_blocks.0.q_proj.weight").grad.abs().max()) > 1e-3


@pytest.mark.parametrize("options", [MODERN, GATED], ids=str)
def test_prefill_and_decoding_continue_the_forward_pass(options: dict[str, Any]) -> None:
    model = small_model(options).float().eval()
    ids = torch.randint(53, (2, 8))
    m = torch.tensor([[0.3], [0.3]]) if model.config.gates else None
    cache = model.new_cache(2)
    with torch.no_grad():
        logits, _ = model.prefill(ids[:, :5], cache, modulation=m)
        expected = model(ids, m)
        torch.testing.assert_close(logits, expected[:, 4], atol=1e-4, rtol=0)
        for t in range(5, 8):
            logits, hidden = model.decode_one_token(ids[:, t], cache, m)
            torch.testing.assert_close(logits, expected[:, t], atol=1e-4, rtol=0)
        torch.testing.assert_close(model.project(hidden), logits)


def test_dropout_is_the_same_for_every_architecture() -> None:
    """With dropout, the training path samples as many random integers as it uses, and all gradients are finite."""
    model = TransformerLM(small_config(**MODERN, dropout=0.2)).train()
    ids, targets = torch.randint(53, (2, 3, 9)).unbind()
    torch.manual_seed(1)
    first = summed_loss(model, ids, targets)
    torch.manual_seed(1)
    assert torch.equal(summed_loss(model, ids, targets), first)
    assert not torch.equal(summed_loss(model, ids, targets), first)
    torch.autograd.backward(first)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_modern_training_in_bf16_is_near_that_of_float32() -> None:
    torch.manual_seed(0)
    model = TransformerLM(small_config(**MODERN)).train()
    ids, targets = torch.randint(53, (2, 3, 9)).unbind()
    exact = summed_loss(model, ids, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = summed_loss(model, ids, targets)
    torch.autograd.backward(found)
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_with_zero_init_a_new_block_changes_nothing() -> None:
    ids = torch.randint(53, (1, 6))
    for options in (MODERN, {}):
        model = TransformerLM(small_config(**options, zero_init=True)).eval()
        shallow = TransformerLM(small_config(**options, num_layers=1)).eval()
        shallow.load_state_dict(model.state_dict(), strict=False)
        with torch.no_grad():
            torch.testing.assert_close(model(ids), shallow(ids))
            assert not any(block.out_proj.weight.any() or block.ffn[3].weight.any() for block in model.blocks)
            assert all(block.q_proj.weight.any() and block.ffn[0].weight.any() for block in model.blocks)


def test_a_model_without_gates_has_none_and_refuses_a_modulation() -> None:
    model = TransformerLM(small_config(gates=False))
    assert model.gates == [] and not [name for name in model.state_dict() if "gate" in name]
    with pytest.raises(ValueError, match="no gates"):
        model(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 1))


def test_nanochat_is_recognised_and_weights_without_the_fields_are_the_reference() -> None:
    assert ModelConfig.model_validate(NANOCHAT).is_nanochat
    assert ModelConfig.model_validate({**NANOCHAT, "logit_softcap": 15.0}).is_nanochat
    for name in NANOCHAT:
        default = ModelConfig.model_fields[name].default
        assert not ModelConfig.model_validate({**NANOCHAT, name: default}).is_nanochat
    assert not ModelConfig().is_nanochat and ModelConfig().changed_architecture() == {}
    old = {name: value for name, value in ModelConfig().model_dump().items() if name not in (*NANOCHAT, "zero_init")}
    assert ModelConfig.model_validate(old).shape() == ModelConfig(zero_init=True, dropout=0.0).shape()
    assert ModelConfig.model_validate(NANOCHAT).shape() != ModelConfig().shape()
    with pytest.raises(ValidationError, match="greater than 0"):
        ModelConfig(logit_softcap=0.0)
