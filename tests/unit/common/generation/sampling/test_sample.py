"""Scoring, filtering and sampling agree with the original's numbers and with a slow, simple implementation."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from common.controller import DecodingParameterRows, DecodingParameters, decoding_parameter_rows
from common.generation import (
    filter_candidates,
    filtered_probabilities,
    pick,
    sample_tokens,
    sampling_entropy,
    score,
    scored_logits,
)
from common.generation.sampling.sample import score_sequences
from tests.paths import PARITY

REFERENCE = json.loads((PARITY / "reference.json").read_text(encoding="utf-8"))
EDGES = json.loads((PARITY / "edge_cases.json").read_text(encoding="utf-8"))
TENSORS = load_file(PARITY / "reference.safetensors")
torch.set_num_threads(1)


def parameter_rows(parameters: DecodingParameters, batch_size: int, vocab_size: int) -> DecodingParameterRows:
    """Return `parameters` repeated for each row of a batch; `vocab_size` replaces a top-k of None."""
    top_k = vocab_size if parameters.top_k is None else parameters.top_k
    return DecodingParameterRows(
        temperature=torch.full((batch_size,), parameters.temperature),
        top_k=torch.full((batch_size,), top_k, dtype=torch.long),
        top_p=torch.full((batch_size,), parameters.top_p),
        repetition_penalty=torch.full((batch_size,), parameters.repetition_penalty),
    )


def mask(sequence: list[int], vocab_size: int) -> Tensor:
    seen = torch.zeros(1, vocab_size, dtype=torch.bool)
    seen[0, sequence] = True
    return seen


def slow_distributions(
    logits: list[float], sequence: set[int], parameters: DecodingParameters
) -> tuple[list[float], list[float]]:
    """Return the scored logits and the filtered distribution, computed token by token with Python floats."""
    scored = []
    for token, value in enumerate(logits):
        if token in sequence:
            value = value / parameters.repetition_penalty if value > 0 else value * parameters.repetition_penalty
        scored.append(value / parameters.temperature)
    highest = max(scored)
    weights = [math.exp(value - highest) for value in scored]
    total = sum(weights)
    probabilities = [weight / total for weight in weights]
    order = sorted(range(len(logits)), key=lambda token: -probabilities[token])
    kept, before = [], 0.0
    for token in order:
        if parameters.top_p >= 1 or before <= parameters.top_p:
            kept.append(token)
        before += probabilities[token]
    if parameters.top_k is not None:
        kept = kept[: parameters.top_k]
    mass = sum(probabilities[token] for token in kept)
    return scored, [probabilities[token] / mass if token in kept else 0.0 for token in range(len(logits))]


@pytest.mark.parametrize("case", REFERENCE["filtered"], ids=lambda case: f"row{case['row']}")
@pytest.mark.parametrize("max_candidates", [None, 100, 5000])
def test_filtered_distributions_equal_the_original(case: dict[str, float], max_candidates: int | None) -> None:
    row = int(case["row"])
    logits, seen = TENSORS["logits_plain"][row, -1][None], mask(REFERENCE["input_ids"][row], 331)
    parameters = decoding_parameter_rows(torch.tensor([case["modulation"]]))
    scored = scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature)
    torch.testing.assert_close(scored[0], TENSORS[f"scored_logits_{row}"], atol=1e-4, rtol=1e-5)
    scores = score(logits, seen, parameters)
    filtered = filtered_probabilities(scores, parameters, max_candidates=max_candidates)
    torch.testing.assert_close(filtered[0], TENSORS[f"filtered_{row}"], atol=1e-4, rtol=0)
    candidates = filter_candidates(scores, parameters, max_candidates=max_candidates)
    assert sampling_entropy(candidates).item() == pytest.approx(case["sampling_entropy"], abs=1e-4)
    assert int((candidates.probabilities > 0).sum()) == case["support"]


@pytest.mark.parametrize("case", EDGES["nucleus"], ids=lambda case: f"m={case['modulation']}")
def test_filtered_distributions_equal_the_original_where_top_p_binds(case: dict[str, int]) -> None:
    logits, seen = TENSORS[f"nucleus_logits_{case['index']}"][None], mask(case["sequence"], 331)
    parameters = decoding_parameter_rows(torch.tensor([case["modulation"]]))
    filtered = filtered_probabilities(score(logits, seen, parameters), parameters, max_candidates=100)
    torch.testing.assert_close(filtered[0], TENSORS[f"nucleus_filtered_{case['index']}"], atol=1e-4, rtol=0)
    assert int((filtered > 0).sum()) == case["support"]


# The logits are distinct, because ties would allow two correct results.
distinct_logits = st.lists(st.integers(-900, 900), min_size=2, max_size=30, unique=True).map(
    lambda values: [value / 100 for value in values]
)
row_cases = st.tuples(
    distinct_logits,
    st.sets(st.integers(0, 29)),
    st.builds(
        DecodingParameters,
        temperature=st.floats(0.2, 3),
        top_k=st.one_of(st.none(), st.integers(1, 40)),
        top_p=st.one_of(st.just(1.0), st.floats(0, 1)),
        repetition_penalty=st.floats(1, 4),
    ),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(row_cases, min_size=1, max_size=3))
def test_every_row_equals_the_slow_implementation(
    rows: list[tuple[list[float], set[int], DecodingParameters]],
) -> None:
    """Each row of a batch has its own parameters; preselecting the top candidates does not change the results."""
    V = min(len(logits) for logits, _, _ in rows)
    rows = [(logits[:V], {token for token in seen if token < V}, parameters) for logits, seen, parameters in rows]
    each = [parameter_rows(parameters, 1, V) for _, _, parameters in rows]
    parameters = DecodingParameterRows(*(torch.cat(column) for column in zip(*each, strict=True)))
    logits = torch.tensor([row for row, _, _ in rows])
    seen = torch.cat([mask(sorted(tokens), V) for _, tokens, _ in rows])
    scores = score(logits, seen, parameters)
    filtered = filtered_probabilities(scores, parameters)
    max_candidates = max(int(k) for k in parameters.top_k)
    preselected = filtered_probabilities(scores, parameters, max_candidates=max_candidates)
    torch.testing.assert_close(preselected, filtered, atol=1e-7, rtol=0)
    for i, (values, tokens, row_parameters) in enumerate(rows):
        scored, expected = slow_distributions(values, tokens, row_parameters)
        close_to_the_edge = abs_edge(scored, row_parameters.top_p)
        if not close_to_the_edge:
            torch.testing.assert_close(filtered[i], torch.tensor(expected), atol=1e-5, rtol=0)
        probabilities = torch.softmax(torch.tensor(scored, dtype=torch.float64), 0)
        entropy = -(probabilities * probabilities.log()).sum()
        assert scores.entropy[i].item() == pytest.approx(entropy.item(), abs=1e-4)


def abs_edge(scored: list[float], top_p: float) -> bool:
    """Return whether rounding may change the result: the order of two tokens, or the tokens that top-p keeps."""
    ordered = torch.tensor(sorted(scored, reverse=True), dtype=torch.float64)
    cumulative = torch.softmax(ordered, 0).cumsum(0)
    tied = bool(((ordered[:-1] - ordered[1:]) < 1e-5).any())
    return tied or bool(((cumulative - top_p).abs() < 1e-5).any())


@settings(deadline=None)
@given(distinct_logits, st.integers(1, 30), st.floats(0, 1))
def test_what_is_kept_is_a_distribution_of_the_most_probable(logits: list[float], k: int, p: float) -> None:
    V = len(logits)
    parameters = parameter_rows(DecodingParameters(1.0, k, p, 1.0), 1, V)
    filtered = filtered_probabilities(score(torch.tensor([logits]), mask([], V), parameters), parameters)[0]
    support = filtered > 0
    assert filtered.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert 1 <= int(support.sum()) <= min(k, V)
    raw = torch.tensor(logits)
    if not support.all():
        assert raw[support].min() > raw[~support].max()


def test_impossible_tokens_count_nothing() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]])
    parameters = parameter_rows(DecodingParameters(1.0, None, 1.0, 1.0), 1, 4)
    scores = score(logits, mask([1, 2], 4), parameters)
    assert scores.entropy.item() == pytest.approx(math.log(2))
    assert filtered_probabilities(scores, parameters)[0].tolist() == pytest.approx([0.5, 0, 0.5, 0])


def test_frequencies_of_picked_tokens_follow_the_distribution() -> None:
    n = 40_000
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)).expand(n, -1)
    parameters = parameter_rows(DecodingParameters(1.3, 6, 0.9, 1.0), n, 12)
    scores = score(logits, torch.zeros(n, 12, dtype=torch.bool), parameters)
    candidates = filter_candidates(scores, parameters, max_candidates=6)
    tokens = pick(candidates, torch.rand(n, generator=torch.Generator().manual_seed(1)))
    expected = filtered_probabilities(scores, parameters, max_candidates=6)[0]
    observed = torch.bincount(tokens, minlength=12) / n
    assert ((observed - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-24])
def test_no_filtered_token_is_picked_at_the_ends_of_the_interval(uniform: float) -> None:
    logits = torch.randn(200, 50, generator=torch.Generator().manual_seed(2)) * 6
    parameters = parameter_rows(DecodingParameters(1.0, 20, 0.8, 1.0), 200, 50)
    scores = score(logits, torch.zeros(200, 50, dtype=torch.bool), parameters)
    tokens = pick(filter_candidates(scores, parameters, max_candidates=20), torch.full((200,), uniform))
    chosen = filtered_probabilities(scores, parameters, max_candidates=20).gather(1, tokens[:, None])
    assert (chosen > 0).all()


def test_log_probability_is_that_of_the_scored_distribution() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(3))
    seen = torch.rand(3, 40, generator=torch.Generator().manual_seed(4)) < 0.3
    parameters = decoding_parameter_rows(torch.tensor([0.1, 0.5, 1.0]))
    sampled = sample_tokens(logits, seen, parameters, torch.tensor([0.2, 0.7, 0.99]), max_candidates=100)
    scored = scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature)
    expected = torch.log_softmax(scored, 1).gather(1, sampled.token[:, None])[:, 0]
    torch.testing.assert_close(sampled.log_prob, expected, atol=1e-5, rtol=0)


def test_scoring_from_sequences_equals_scoring_from_a_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(6, 83, generator=generator)
    logits[1, 7] = -math.inf
    tokens = torch.randint(0, 83, (6, 9), generator=generator)
    tokens[2, 4:] = -1
    tokens[3] = tokens[3, 0]
    seen = torch.zeros(6, 83, dtype=torch.bool)
    for row, sequence in enumerate(tokens.tolist()):
        seen[row, [token for token in sequence if token >= 0]] = True
    parameters = decoding_parameter_rows(torch.linspace(0, 1, 6))
    for found, expected in zip(
        score_sequences(logits, tokens, parameters), score(logits, seen, parameters), strict=True
    ):
        torch.testing.assert_close(found, expected)
