"""Packed layers compute almost the same results as the original layers, and no row influences another."""

from __future__ import annotations

import pytest
import torch

from common.generation.cpu.packed_linear import Precision, pack

torch.set_num_threads(1)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-5), ("bfloat16", 0.05), ("int8", 0.05)])
def test_a_packed_layer_is_the_layer_to_rounding(precision: str, error: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 200)
    x = torch.randn(5, 64)
    packed = pack(layer.weight, layer.bias, Precision(precision))
    with torch.no_grad():
        expected = layer(x)
        torch.testing.assert_close(packed(x), expected, atol=error, rtol=0)
        torch.testing.assert_close(packed(x[:1]), expected[:1], atol=error, rtol=0)


@pytest.mark.parametrize("width", [1, 8, 20, 100, 257])
def test_int8_takes_inputs_of_any_width(width: int) -> None:
    """If the width is not a multiple of 16, torch's int8 product reads beyond the end of its input."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, 50)
    packed = pack(layer.weight, layer.bias, Precision.INT8)
    for rows in (1, 5):
        x = torch.randn(rows, width)
        with torch.no_grad():
            torch.testing.assert_close(packed(x), layer(x), atol=0.05, rtol=0)


def test_a_row_of_int8_does_not_depend_on_the_others() -> None:
    """A row with values a thousand times larger does not change the results of other rows."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 200)
    packed = pack(layer.weight, layer.bias, Precision.INT8)
    x = torch.randn(7, 64)
    x[3] *= 1000
    together = packed(x)
    for row in range(7):
        assert torch.equal(packed(x[row : row + 1])[0], together[row])


def test_an_impossible_token_stays_impossible_and_finite() -> None:
    layer = torch.nn.Linear(8, 3)
    with torch.no_grad():
        layer.bias[1] = float("-inf")
        logits = pack(layer.weight, layer.bias, Precision.FLOAT32)(torch.randn(2, 8))
    assert torch.isfinite(logits).all()
    assert (logits.softmax(1)[:, 1] == 0).all()
