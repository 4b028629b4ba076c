"""The forward and backward pass for training on a CPU equals plain torch, apart from the random numbers of dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.config import ModelConfig
from common.model import TransformerLM
from common.model.cpu_threads import map_on_cores, split_evenly
from common.model.dropout import DropoutBits, add_after_dropout, dropout, rate
from common.model.rope import apply_rotary, rope_tables
from common.model.training_attention import QUERIES_PER_PART, integers_needed, training_attention


@pytest.mark.parametrize("modulated", [False, True])
def test_without_dropout_training_equals_evaluation(modulated: bool) -> None:
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(vocab_size=50, d_model=16, num_layers=2, num_heads=2, ffn_dim=32, dropout=0.0))
    ids = torch.randint(50, (3, 20))
    modulation = torch.rand(3, 1) if modulated else None
    gradients = []
    for training in (True, False):
        model.train(training)
        states = model.hidden_states(ids, modulation)
        model.zero_grad()
        torch.autograd.backward(states.square().sum())
        gradients.append(
            (states.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        )
    (found, found_gradients), (expected, expected_gradients) = gradients
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in found_gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("length", [1, 7, QUERIES_PER_PART, QUERIES_PER_PART + 3])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_equals_the_textbook_formula_with_the_same_dropout(length: int, p: float, qk_norm: bool) -> None:
    torch.manual_seed(1)
    B, H, K = 2, 2, 4
    cos, sin = rope_tables(length, K)
    qkv = torch.randn(B, length, 3 * H * K, dtype=torch.float64, requires_grad=True)
    cos, sin = cos.double(), sin.double()
    integers = DropoutBits(B * integers_needed(length, H)).take(B, integers_needed(length, H)) if p else None
    weights = torch.randn(B, length, H * K, dtype=torch.float64)

    found = training_attention(qkv, cos, sin, H, integers, p, qk_norm=qk_norm)
    (found_gradient,) = torch.autograd.grad((found * weights).sum(), qkv)

    q, k, v = (part.view(B, length, H, K).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
    if qk_norm:
        q, k = (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
    scores = q @ k.transpose(2, 3) / math.sqrt(K)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    probabilities = scores.masked_fill(~allowed, -math.inf).softmax(-1)
    if integers is not None:
        limit, scale = rate(p)
        probabilities = probabilities * (unpacked(integers, length, H) > limit) * scale
    expected = (probabilities @ v).transpose(1, 2).reshape(B, length, H * K)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), qkv)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_gradient, expected_gradient)


def unpacked(integers: Tensor, length: int, num_heads: int) -> Tensor:
    """Return the integers (B, n) of `training_attention` as a matrix (B, H, T, T)."""
    B = len(integers)
    matrix, used = torch.zeros(B, num_heads, length, length, dtype=torch.int16), 0
    for start in range(0, length, QUERIES_PER_PART):
        end = min(start + QUERIES_PER_PART, length)
        count = num_heads * (end - start) * end
        matrix[:, :, start:end, :end] = integers[:, used : used + count].view(B, num_heads, end - start, end)
        used += count
    return matrix


@pytest.mark.parametrize("p", [0.1, 0.19, 0.5])
def test_dropout_drops_the_configured_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(2)
    n = 1_000_000
    x = torch.ones(n, requires_grad=True)
    integers = DropoutBits(n).take(n)
    y = dropout(x, integers, p)
    deviation = math.sqrt(p * (1 - p) / n)
    assert float((y == 0).double().mean()) == pytest.approx(p, abs=5 * deviation)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-4)
    torch.autograd.backward(y.sum())
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    residual = torch.full((n,), 3.0)
    torch.testing.assert_close(add_after_dropout(residual, x, integers, p), residual + y)
    # Neighbours are independent: both are dropped with probability p².
    both = ((y[:-1] == 0) & (y[1:] == 0)).double().mean()
    assert float(both) == pytest.approx(p * p, abs=5 * math.sqrt(p * p / n))


@pytest.mark.parametrize("p", [1e-9, 0.1])
def test_in_bf16_the_same_elements_are_dropped(p: float) -> None:
    integers = DropoutBits(4096).take(4096)
    exact, low = (dropout(torch.ones(4096, dtype=dtype), integers, p) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(exact == 0, low == 0)


def test_dropout_depends_only_on_the_state_of_the_generator() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = DropoutBits(1000).take(10, 100), DropoutBits(1000).take(10, 100)
    torch.set_rng_state(state)
    assert torch.equal(DropoutBits(1000).take(10, 100), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.999999, 1 - 1e-12])
def test_the_scale_is_finite_for_every_probability(p: float) -> None:
    limit, scale = rate(p)
    assert -(1 << 15) - 1 <= limit < (1 << 15) - 1
    assert 1.0 <= scale <= 1 << 16


def test_results_of_threads_are_in_order_and_errors_are_raised_at_the_end() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert map_on_cores(lambda i: (i, torch.get_num_threads(), torch.is_grad_enabled()), range(5)) == [
            (i, 1, False) for i in range(5)
        ]
        assert torch.get_num_threads() == 2
        ended = []

        def fail_first(i: int) -> None:
            if i == 0:
                raise ValueError("the first part")
            ended.append(i)

        with pytest.raises(ValueError, match="the first part"):
            map_on_cores(fail_first, range(4))
        assert sorted(ended) == [1, 2, 3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "parts", "sizes"), [(10, 3, [3, 3, 4]), (2, 5, [1, 1]), (0, 2, []), (4, 1, [4])])
def test_even_ranges_cover_everything(count: int, parts: int, sizes: list[int]) -> None:
    ranges = split_evenly(count, parts)
    assert [each.stop - each.start for each in ranges] == sizes
    assert [i for each in ranges for i in range(each.start, each.stop)] == list(range(count))
