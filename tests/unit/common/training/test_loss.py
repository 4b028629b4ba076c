"""The loss that is computed in chunks and its gradients equal the cross-entropy of the full logits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from common.config import ModelConfig
from common.model import TransformerLM
from common.training import loss as loss_module
from common.training.loss import summed_loss


@pytest.mark.parametrize("logits_per_chunk", [1 << 22, 300 * 7, 1])
@pytest.mark.parametrize("modulated", [False, True])
def test_loss_and_gradients_equal_those_of_the_logits(
    logits_per_chunk: int, modulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "_LOGITS_PER_CHUNK", logits_per_chunk)
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
    monkeypatch.setattr(loss_module, "_LOGITS_PER_CHUNK", 300 * 7)
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(vocab_size=300, d_model=16, num_layers=1, num_heads=2, ffn_dim=32)).eval()
    input_ids, targets = torch.randint(300, (2, 3, 11)).unbind()
    with torch.no_grad():
        found = summed_loss(model, input_ids, targets)
        log_probs = model(input_ids, None).double().log_softmax(-1)
    expected = -sum(log_probs[b, t, targets[b, t]] for b in range(3) for t in range(11))
    assert not found.requires_grad
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
