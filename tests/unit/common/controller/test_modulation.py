"""The modulation is mapped to the right decoding parameters (temperature, top-k, top-p, repetition penalty)."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import ModulationConfig, Range
from common.controller import decoding_parameter_rows, decoding_parameters
from tests.paths import PARITY

REFERENCE = json.loads((PARITY / "reference.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", REFERENCE["decoding_parameters"], ids=lambda row: f"m={row['modulation']}")
def test_parameters_equal_the_original(row: dict[str, float]) -> None:
    got = decoding_parameters(row["modulation"])
    assert got.top_k == row["top_k"]
    for name in ("temperature", "repetition_penalty", "top_p"):
        assert getattr(got, name) == pytest.approx(row[name], abs=1e-9)


@settings(deadline=None)
@given(st.floats(-2, 3, width=32))
def test_rows_agree_with_the_scalar_map(m: float) -> None:
    rows = decoding_parameter_rows(torch.tensor([[m], [m]]))
    one = decoding_parameters(m)
    assert rows.top_k.tolist() == [one.top_k] * 2
    torch.testing.assert_close(rows.temperature, torch.full((2,), one.temperature))
    torch.testing.assert_close(rows.top_p, torch.full((2,), one.top_p))
    torch.testing.assert_close(rows.repetition_penalty, torch.full((2,), one.repetition_penalty))


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_every_parameter_rises_with_modulation(a: float, b: float) -> None:
    low, high = decoding_parameters(min(a, b)), decoding_parameters(max(a, b))
    assert low.top_k is not None and high.top_k is not None
    assert low.top_k <= high.top_k
    assert low.temperature <= high.temperature
    assert low.top_p <= high.top_p
    assert low.repetition_penalty <= high.repetition_penalty


def test_modulation_outside_the_interval_is_clamped() -> None:
    assert decoding_parameters(-1.0) == decoding_parameters(0.0)
    assert decoding_parameters(7.0) == decoding_parameters(1.0)


def test_top_k_rounds_half_to_even() -> None:
    config = ModulationConfig(top_k=Range(low=0, high=5))
    assert decoding_parameters(0.5, config).top_k == 2
    assert decoding_parameter_rows(torch.tensor([0.5]), config).top_k.tolist() == [2]


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        decoding_parameters(float("nan"))
