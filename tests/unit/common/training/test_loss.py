"""The loss that is computed in chunks and its gradients equal the cross-entropy of the full logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from common.config import ModelConfig
from common.model import TransformerLM
from common.training import vocabulary_loss
from common.training.loss import summed_loss


@pytest.mark.parametrize(("per_chunk", "per_block"), [(1 << 22, 1 << 18), (300 * 7, 16 * 7), (1, 1)])
@pytest.mark.parametrize("modulated", [False, True])
def test_loss_and_gradients_equal_those_of_the_logits(
    per_chunk: int, per_block: int, modulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_loss, "LOGITS_PER_CHUNK", per_chunk)
    monkeypatch.setattr(vocabulary_loss, "LOGITS_PER_BLOCK", per_block)
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(vocab_size=300, d_model=16, num_layers=1, num_heads=2, ffn_dim=32, dropout=0.0))
    input_ids, targets = torch.randint(300, (2, 3, 11)).unbind()
    modulation = torch.rand(3, 1) if modulated else None
    found = summed_loss(model, input_ids, targets, modulation)
    found.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = functional.cross_entropy(model(input_ids, modulation).flatten(0, 1), targets.flatten(), reduction="sum")
    expected.backward()
    torch.testing.assert_close(found, expected)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_validation_has_the_same_loss_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_loss, "LOGITS_PER_CHUNK", 300 * 7)
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(vocab_size=300, d_model=16, num_layers=1, num_heads=2, ffn_dim=32)).eval()
    input_ids, targets = torch.randint(300, (2, 3, 11)).unbind()
    differentiated: list[object] = []
    monkeypatch.setattr(vocabulary_loss, "_backward", lambda *arguments: differentiated.append(arguments))
    with torch.no_grad():
        found = summed_loss(model, input_ids, targets)
        log_probs = model(input_ids, None).double().log_softmax(-1)
    expected = -sum(log_probs[b, t, targets[b, t]] for b in range(3) for t in range(11))
    assert not found.requires_grad
    assert not differentiated  # the gradients cost twice as much as the loss
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("with_bias", "softcap"), [(False, None), (True, 3.0), (False, 3.0)])
@pytest.mark.parametrize("per_block", [1 << 18, 16 * 13])
def test_without_bias_and_with_a_soft_cap_the_gradients_are_those_of_autograd(
    threads: int, with_bias: bool, softcap: float | None, per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary_loss, "LOGITS_PER_BLOCK", per_block)
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 8, dtype=torch.float64) * 2 for n in (13, 101))
    bias = torch.randn(101, dtype=torch.float64) if with_bias else None
    given = [each.requires_grad_() for each in (hidden, weight, bias) if each is not None]
    targets = torch.randint(101, (13,))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = vocabulary_loss.vocabulary_loss(hidden, weight, bias, targets, softcap)
        gradients = torch.autograd.grad(found * 0.5, given)
    finally:
        torch.set_num_threads(before)
    logits = hidden @ weight.t() + (0.0 if bias is None else bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected * 0.5, given), strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_gradients_of_large_logits_are_exact(threads: int) -> None:
    """Logits of ±200 overflow float32 if the exponentials are not taken relative to a maximum."""
    torch.manual_seed(0)
    hidden = (torch.randn(13, 8) * 20).requires_grad_()
    weight, bias = (torch.randn(101, 8) * 4).requires_grad_(), torch.randn(101, requires_grad=True)
    targets = torch.randint(101, (13,))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = vocabulary_loss.vocabulary_loss(hidden, weight, bias, targets)
        torch.autograd.backward(found * 0.5)
    finally:
        torch.set_num_threads(before)
    gradients = [hidden.grad, weight.grad, bias.grad]
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight, bias)]
    expected = functional.cross_entropy(exact[0] @ exact[1].t() + exact[2], targets, reduction="sum")
    torch.autograd.backward(expected * 0.5)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for gradient, wanted in zip(gradients, exact, strict=True):
        assert gradient is not None and wanted.grad is not None
        torch.testing.assert_close(gradient.double(), wanted.grad, atol=2e-4, rtol=1e-4)


def test_the_loss_under_bf16_autocast_is_near_that_of_float32() -> None:
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(vocab_size=300, d_model=16, num_layers=1, num_heads=2, ffn_dim=32, dropout=0.1))
    input_ids, targets = torch.randint(300, (2, 3, 11)).unbind()
    model.eval()
    exact = float(summed_loss(model, input_ids, targets).detach())
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = summed_loss(model, input_ids, targets)
    torch.autograd.backward(found)
    assert float(found.detach()) == pytest.approx(exact, rel=0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_gradients_can_be_computed_only_once() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    loss = vocabulary_loss.vocabulary_loss(hidden, torch.randn(5, 4), torch.zeros(5), torch.tensor([0, 1, 4]))
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="can be computed once"):
        torch.autograd.backward(loss)
