"""Summaries fit their budget, keep small results unchanged, and name what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mcp.summary import CHARACTERS_PER_TOKEN, SMALLEST_BUDGET, select, summarize
from services.mcp.tools.comparison import flatten, meets

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=8), inner, max_size=40),
    max_leaves=60,
)


@settings(max_examples=50, deadline=None)
@given(result=VALUES, budget=st.integers(SMALLEST_BUDGET, 2000))
def test_every_result_fits_every_budget(result: Any, budget: int) -> None:
    assert len(summarize({"result": result}, budget)) <= budget * CHARACTERS_PER_TOKEN


def test_a_small_result_is_complete_and_floats_are_rounded() -> None:
    result = {"a": [1, 2.123456789, "x", None, True], "b": {"c": float("nan")}}
    assert json.loads(summarize(result)) == {"a": [1, 2.12346, "x", None, True], "b": {"c": None}}


def test_long_lists_and_texts_are_cut_and_named() -> None:
    result = {"points": list(range(10_000)), "nested": {"text": "y" * 9000}}
    found = json.loads(summarize(result, 400, hint="ask for a part"))
    assert found["points"] == list(range(len(found["points"]))) and len(found["points"]) >= 25
    assert f"points: {len(found['points'])} of 10,000 entries" in found["omitted"]
    assert any(each.startswith("nested.text: ") and "of 9,000 characters" in each for each in found["omitted"])
    assert found["more"] == "ask for a part"


def test_a_larger_budget_shows_at_least_as_much() -> None:
    result = {"points": list(range(5000))}
    shown = [len(json.loads(summarize(result, budget))["points"]) for budget in (200, 500, 1000, 5000, 20_000)]
    assert shown == sorted(shown) and shown[-1] == 5000


def test_parts_are_selected_by_dotted_paths() -> None:
    value = {"a": [{"b": 1}], "Losses/Total.x": {"c": 2}, "e": 3}
    assert select(value, None) is value
    assert select(value, "a.0.b") == 1
    assert select(value, "Losses/Total.x") == {"c": 2}
    for path, names in (("z", "a, Losses/Total.x, e"), ("a.1", "0 to 0"), ("e.f", "nothing")):
        with pytest.raises(LookupError, match=names):
            select(value, path)


@pytest.mark.parametrize(
    ("value", "condition", "expected"),
    [
        (3, 3, True),
        (3, 4, False),
        (3, {"min": 3}, True),
        (3, {"max": 2.9}, False),
        (3, {"min": 1, "max": 5}, True),
        (None, {"min": 1}, False),
        (True, {"min": 0}, False),
        ("adamw", "adamw", True),
        (None, None, True),
    ],
)
def test_conditions_on_a_configuration(value: Any, condition: Any, expected: bool) -> None:
    assert meets(value, condition) is expected


def test_a_configuration_is_flattened_to_dotted_paths() -> None:
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}
