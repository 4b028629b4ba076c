"""The step reward equals the original's numbers for one token and for batches."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from common.config import REWARD_COMPONENTS, RewardConfig
from common.rl import NgramStatistics, step_reward
from common.rl.rewards import WINDOW, reward_components, reward_weights, without_components
from tests.paths import PARITY

VOCAB = 331

torch.set_num_threads(1)


def _cases() -> list[dict[str, Any]]:
    """Return the reward cases of both files in `tests/data/parity`, which contain the original's numbers.

    Each case has logits, statistics and expected numbers.
    """
    tensors = load_file(PARITY / "reference.safetensors")
    cases = []
    for name in ("reference", "edge_cases"):
        content = json.loads((PARITY / f"{name}.json").read_text())
        counted = NgramStatistics.from_sequences(content["bigram_sequences"], VOCAB)
        for case in content["rewards"]:
            row = "scored_logits_" + str(case["scored_row"]) if name == "reference" else ""
            logits = tensors[row or f"reward_logits_{case['index']}"]
            statistics = counted if case.get("with_statistics", True) else None
            cases.append({**case, "name": name, "logits": logits, "statistics": statistics})
    return cases


CASES = _cases()


@pytest.mark.parametrize("case", CASES, ids=[f"{c['name']}-{i}" for i, c in enumerate(CASES)])
def test_one_step_equals_the_original(case: dict[str, Any]) -> None:
    reward = step_reward(case["logits"], case["token"], case["generated"], case["sampling_entropy"], case["statistics"])
    assert reward.total == pytest.approx(case["total"], abs=1e-6)
    assert reward.components == pytest.approx(case["components"], abs=1e-6)


def _batched(logits: Tensor, cases: list[dict[str, Any]], statistics: NgramStatistics | None) -> Tensor:
    log_probs = logits.log_softmax(-1)
    token = torch.tensor([c["token"] for c in cases])
    recent = torch.tensor([([-1] * WINDOW + c["generated"])[-WINDOW:] for c in cases])
    return reward_components(
        log_probs.gather(1, token[:, None])[:, 0],
        torch.special.entr(log_probs.exp()).sum(-1),
        torch.tensor([c["sampling_entropy"] for c in cases]),
        token,
        recent,
        statistics,
        RewardConfig(),
    )


@pytest.mark.parametrize("with_statistics", [True, False])
@pytest.mark.parametrize("name", ["reference", "edge_cases"])
def test_a_batch_equals_the_original(name: str, with_statistics: bool) -> None:
    cases = [c for c in CASES if c["name"] == name and (c["statistics"] is not None) == with_statistics]
    if not cases:
        assert name == "reference" and not with_statistics
        return
    found = _batched(torch.stack([c["logits"] for c in cases]), cases, cases[0]["statistics"])
    expected = torch.tensor([[c["components"][part] for part in REWARD_COMPONENTS] for c in cases])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    totals = found @ torch.tensor(reward_weights(RewardConfig()))
    torch.testing.assert_close(totals, torch.tensor([c["total"] for c in cases]), atol=1e-5, rtol=0)


@given(
    history=st.lists(st.integers(0, 6), max_size=25),
    token=st.integers(0, 6),
    logits=st.lists(st.floats(-30, 30), min_size=7, max_size=7),
    documents=st.lists(st.lists(st.integers(0, 5), max_size=8), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_batch_and_single_step_agree(
    history: list[int], token: int, logits: list[float], documents: list[list[int]]
) -> None:
    statistics = NgramStatistics.from_sequences(documents, 7)
    case = {"generated": history, "token": token, "sampling_entropy": 1.0}
    row = torch.tensor(logits)
    found = _batched(row[None], [case], statistics)[0].tolist()
    expected = step_reward(row, token, history, 1.0, statistics).components
    assert found == pytest.approx([expected[name] for name in REWARD_COMPONENTS], abs=1e-4)


@given(documents=st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=5))
@settings(max_examples=40, deadline=None)
def test_ngram_counts_equal_plain_counting(documents: list[list[int]]) -> None:
    statistics = NgramStatistics.from_sequences(documents, 10)
    singles = Counter(token for document in documents for token in document)
    pairs = Counter(pair for document in documents for pair in pairwise(document))
    assert statistics.unigrams.tolist() == [singles[token] for token in range(10)]
    assert (statistics.total, statistics.bigram_total) == (singles.total(), pairs.total())
    grid = torch.cartesian_prod(torch.arange(10), torch.arange(10))
    assert statistics.bigram_count(grid[:, 0], grid[:, 1]).tolist() == [pairs[a, b] for a, b in grid.tolist()]


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary of 5"):
        NgramStatistics.from_sequences([[1, 5]], 5)


def test_omitted_components_keep_the_sum_of_the_weights() -> None:
    weights = reward_weights(RewardConfig())
    kept = without_components(weights, "coherence", "diversity")
    assert sum(kept) == pytest.approx(sum(weights))
    assert kept == pytest.approx((0.35 / 0.7, 0, 0.15 / 0.7, 0.2 / 0.7, 0))
    with pytest.raises(ValueError, match="unknown reward component 'fluency'"):
        without_components(weights, "fluency")
    with pytest.raises(ValueError, match="no component has a weight"):
        without_components(weights, *REWARD_COMPONENTS)


def test_certain_tokens_and_impossible_ones_stay_within_bounds() -> None:
    logits = torch.tensor([1000.0, 0.0, -1000.0])
    assert step_reward(logits, 0, [], 0.0).components["perplexity"] == 0
    assert step_reward(logits, 2, [], 0.0).components["perplexity"] == -1
    assert step_reward(logits, 0, [], 0.0).components["diversity"] == pytest.approx(math.exp(-2))
