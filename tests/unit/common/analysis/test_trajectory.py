"""The analysis of modulations equals the original's numbers and the results of Python's standard library."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.analysis import TrajectoryToken, analyze_batch, analyze_sweep, analyze_trajectory, bootstrap_interval
from common.analysis.stats import mean, summarise, variance, welch_t
from common.errors import InvalidInputError
from tests.paths import PARITY

REFERENCE = json.loads((PARITY / "reference.json").read_text(encoding="utf-8"))
EDGES = json.loads((PARITY / "edge_cases.json").read_text(encoding="utf-8"))


def tokens(values: list[float]) -> list[TrajectoryToken]:
    return [TrajectoryToken(i, f"t{i}", value) for i, value in enumerate(values)]


def assert_close(got: Any, expected: Any, path: str = "") -> None:
    """Assert equal keys and lengths, and values that differ by at most 1e-9."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), path
        for key in expected:
            assert_close(got[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert len(got) == len(expected), path
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_close(a, b, f"{path}[{i}]")
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, abs=1e-9), path
    else:
        assert got == expected, path


@pytest.mark.parametrize("case", [REFERENCE["trajectory"], *EDGES["short_trajectories"]])
def test_trajectory_analysis_equals_the_original(case: dict[str, Any]) -> None:
    assert_close(analyze_trajectory(tokens(case["modulation"])), case["analysis"])


def test_batch_analysis_equals_the_original() -> None:
    assert_close(analyze_batch(REFERENCE["batch"]["modulation"]), REFERENCE["batch"]["analysis"])


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=60))
def test_summary_agrees_with_the_standard_library(values: list[float]) -> None:
    got = summarise(values)
    assert got["mean"] == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert got["std"] == pytest.approx(statistics.pstdev(values), abs=1e-9)
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    assert [got["q25"], got["q50"], got["q75"]] == pytest.approx(quartiles, abs=1e-12)
    assert (got["min"], got["max"]) == (min(values), max(values))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=45))
def test_windows_and_ends_cover_what_they_should(values: list[float]) -> None:
    got = analyze_trajectory(tokens(values))
    sizes = [len(values) // 4 + (i < len(values) % 4) for i in range(4)]
    weighted = sum(
        size * window["mean"] for size, window in zip(sizes, got["signalEvolution"]["modulation"], strict=True)
    )
    assert weighted == pytest.approx(sum(values), abs=1e-9)
    ends = got["tokenSignalAlignment"]["modulation"]
    shown = max(1, len(values) // 10)
    assert [token["value"] for token in ends["lowTokens"]] == sorted(values)[:shown]
    assert [token["value"] for token in ends["highTokens"]] == sorted(values)[-shown:]


def test_welch_t_has_the_sign_of_the_fall_and_is_0_where_undefined() -> None:
    # Samples with means 2 and 5 and unbiased variances 1 and 7 give t = −3 / √(1/3 + 7/3).
    assert welch_t([1, 2, 3], [3, 4, 8]) == pytest.approx(-3 / math.sqrt(8 / 3))
    assert welch_t([1], [2, 3]) == 0.0
    assert welch_t([1, 1], [2, 2]) == 0.0


def test_a_step_too_small_to_matter_is_no_phase_change() -> None:
    small = [0.03970 + 0.00001 * (i % 3) + 0.0003 * (i // 10) for i in range(40)]
    assert min(abs(welch_t(small[i : i + 10], small[i + 10 : i + 20])) for i in (0, 10, 20)) > 50
    assert analyze_trajectory(tokens(small))["phases"] == []
    large = [value + 0.06 * (i // 20) for i, value in enumerate(small)]
    assert [phase["windowBoundary"] for phase in analyze_trajectory(tokens(large))["phases"]] == ["Q2→Q3"]


def test_bootstrap_intervals_contain_the_figure_and_depend_on_the_seed() -> None:
    values = [0.1, 0.4, 0.5, 0.7, 0.2, 0.9, 0.35]
    low, high = bootstrap_interval(values, variance, seed=3)
    assert (low, high) == bootstrap_interval(values, variance, seed=3)
    assert low < variance(values) < high
    assert low >= 0
    low, high = bootstrap_interval(values, mean)
    # The normal-distribution interval of a mean, with half-width 1.96·s/√n, serves as an independent reference.
    half = 1.96 * statistics.pstdev(values) / math.sqrt(len(values))
    assert (low, high) == pytest.approx((mean(values) - half, mean(values) + half), abs=0.03)
    assert bootstrap_interval([], mean) == (0.0, 0.0)


def test_batch_intervals_belong_to_their_figures() -> None:
    got = analyze_batch({"a": [0.1, 0.2], "b": [0.6, 0.8], "c": [0.3, 0.5]}, bootstrap=True)
    spread, strategy = got["crossPromptVariance"]["modulation"], got["strategyCharacterization"]["modulation"]
    for figures in (spread, strategy):
        for name, (low, high) in figures["confidenceIntervals"].items():
            assert low <= figures[name] <= high
    assert spread["confidenceIntervals"]["betweenPromptVar"][1] < 0.07  # an interval of the mean would be higher


def test_sweep_counts_words_and_takes_differences() -> None:
    got = analyze_sweep({"0.0": "a cat a cat", "0.5": "", "1.0": "the  dog ran"})
    assert got["statistics"]["0.0"] == {"wordCount": 4, "uniqueWordRatio": 0.5, "charCount": 11}
    assert got["statistics"]["0.5"] == {"wordCount": 0, "uniqueWordRatio": 0.0, "charCount": 0}
    assert got["deltas"] == {"wordCount": -1.0, "uniqueWordRatio": 0.5, "charCount": 1.0}


def test_nothing_to_analyse_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="0 tokens"):
        analyze_trajectory([])
    with pytest.raises(InvalidInputError, match="no prompts"):
        analyze_batch({})
    with pytest.raises(InvalidInputError, match="'b'"):
        analyze_batch({"a": [0.1], "b": []})
    with pytest.raises(InvalidInputError, match=r"1\.0 is missing"):
        analyze_sweep({"0.0": "", "0.5": ""})
