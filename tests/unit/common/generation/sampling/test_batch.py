"""Sampling a batch whose rows have different filters equals a computation row by row with Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.controller import DecodingParameterRows
from common.generation.sampling.batch import ROWS_AT_ONCE, BatchTraits, CandidateFilter, sample_batch
from common.generation.sampling.sample import FOLDS, largest, largest_in_order

torch.set_num_threads(1)


def scored(logits: list[float], sequence: list[int], penalty: float, temperature: float) -> list[float]:
    values = [
        (value / penalty if value > 0 else value * penalty) / temperature if token in sequence else value / temperature
        for token, value in enumerate(logits)
    ]
    largest_value = max(values)
    mass = math.fsum(math.exp(value - largest_value) for value in values)
    return [math.exp(value - largest_value) / mass for value in values]


def expected(
    probabilities: list[float], row_filter: CandidateFilter, top_k: int, top_p: float, uniform: float
) -> tuple[int, list[float]]:
    """Return the token, and the distribution from which it was sampled."""
    order = list(range(len(probabilities)))
    if row_filter is not CandidateFilter.FULL_DISTRIBUTION:
        order.sort(key=lambda token: -probabilities[token])
    kept, before = [], 0.0
    for rank, token in enumerate(order):
        if row_filter is CandidateFilter.FULL_DISTRIBUTION or (
            (before <= top_p or top_p >= 1) and (row_filter is CandidateFilter.TOP_P or rank < top_k)
        ):
            kept.append(token)
        before += probabilities[token]
    mass = math.fsum(probabilities[token] for token in kept)
    target, total = uniform * mass, 0.0
    for token in kept:
        total += probabilities[token]
        if total > target:
            return token, [probabilities[kept_token] / mass for kept_token in kept]
    raise AssertionError("the distribution has no mass left")


@pytest.mark.parametrize("vocabulary", [50, 160 * FOLDS + 7, 1200 * FOLDS + 1])
def test_every_row_is_sampled_as_if_alone(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    n = ROWS_AT_ONCE + 5
    logits = 3 * torch.randn(n, vocabulary, generator=generator)
    filters = [list(CandidateFilter)[row % 3] for row in range(n)]
    tokens = torch.randint(-1, 40, (n, 9), generator=generator)
    tokens[3] = -1
    parameters = DecodingParameterRows(
        temperature=0.5 + torch.rand(n, generator=generator),
        top_k=torch.randint(1, 30, (n,), generator=generator),
        top_p=0.3 + 0.7 * torch.rand(n, generator=generator),
        repetition_penalty=1 + torch.rand(n, generator=generator),
    )
    parameters.top_p[[1, 4]] = 0.9999  # so high that all candidates must be sorted
    for row, row_filter in enumerate(filters):
        if row_filter is not CandidateFilter.TOP_K:
            parameters.top_k[row] = vocabulary
    uniform = torch.rand(n, generator=generator)
    sampled = sample_batch(
        logits.clone(), tokens, parameters, uniform, BatchTraits(filters, max_top_k=30, top_log_probs=3)
    )
    assert sampled.top_ids is not None
    for row, row_filter in enumerate(filters):
        sequence = [token for token in tokens[row].tolist() if token >= 0]
        temperature, top_k, top_p, penalty = (values[row].item() for values in parameters)
        probabilities = scored(logits[row].tolist(), sequence, penalty, temperature)
        token, kept = expected(probabilities, row_filter, int(top_k), top_p, uniform[row].item())
        assert sampled.token[row] == token
        assert sampled.log_prob[row].item() == pytest.approx(math.log(probabilities[token]), abs=1e-3)
        entropy = -math.fsum(p * math.log(p) for p in probabilities if p > 0)
        assert sampled.entropy[row].item() == pytest.approx(entropy, abs=1e-3)
        sampled_entropy = -math.fsum(p * math.log(p) for p in kept if p > 0)
        assert sampled.sampling_entropy[row].item() == pytest.approx(sampled_entropy, abs=1e-3)
        likeliest = sorted(range(vocabulary), key=lambda other: -probabilities[other])[:3]
        assert sampled.top_ids[row].tolist() == likeliest


def test_a_row_with_many_tokens_of_its_own_is_penalised_once_by_all_of_them() -> None:
    generator = torch.Generator().manual_seed(5)
    n = ROWS_AT_ONCE + 3
    logits, uniform = torch.randn(n, 90, generator=generator), torch.rand(n, generator=generator)
    parameters = DecodingParameterRows(torch.ones(n), torch.full((n,), 5), torch.ones(n), torch.full((n,), 1.7))
    tokens = torch.randint(0, 90, (n, 40), generator=generator)
    traits = BatchTraits([CandidateFilter.TOP_K] * n, max_top_k=5, equal_lengths=True)
    all_tokens = sample_batch(logits.clone(), tokens, parameters, uniform, traits)
    short = tokens[:, :3].clone()
    others = [row for row in range(n) if row not in (2, 17)]
    separate = sample_batch(logits.clone(), short, parameters, uniform, traits, [(2, tokens[2:3]), (17, tokens[17:18])])
    assert separate.log_prob[[2, 17]].tolist() == all_tokens.log_prob[[2, 17]].tolist()
    assert separate.token[[2, 17]].tolist() == all_tokens.token[[2, 17]].tolist()
    narrow = sample_batch(logits.clone(), short, parameters, uniform, traits)
    assert separate.log_prob[others].tolist() == narrow.log_prob[others].tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(2, 500), st.integers(0, FOLDS - 1), st.integers(0, 1000), st.booleans())
def test_the_largest_are_found_without_sorting(count: int, blocks: int, rest: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, blocks * FOLDS + rest, generator=generator)
    if ties:
        values = values.round()
    found, positions = largest(values, count)
    torch.testing.assert_close(found, values.sort(dim=1, descending=True).values[:, :count], atol=0, rtol=0)
    torch.testing.assert_close(values.gather(1, positions), found, atol=0, rtol=0)
    assert all(len(set(row)) == count for row in positions.tolist())


@pytest.mark.parametrize("row_filter", [CandidateFilter.FULL_DISTRIBUTION, CandidateFilter.TOP_P])
def test_a_row_without_finite_logits_leaves_its_neighbours_alone(row_filter: CandidateFilter) -> None:
    """The row without finite logits gets a token of the vocabulary, with a log-probability that is not finite."""
    generator = torch.Generator().manual_seed(3)
    logits, uniform = torch.randn(3, 60, generator=generator), torch.rand(3, generator=generator)
    parameters = DecodingParameterRows(torch.ones(3), torch.full((3,), 60), torch.full((3,), 0.9), torch.ones(3))
    tokens = torch.zeros(3, 0, dtype=torch.int64)
    healthy = sample_batch(logits.clone(), tokens, parameters, uniform, BatchTraits([row_filter] * 3, max_top_k=1))
    parameters.temperature[1] = 1e-40  # its reciprocal is infinite in float32
    sampled = sample_batch(logits.clone(), tokens, parameters, uniform, BatchTraits([row_filter] * 3, max_top_k=1))
    assert sampled.token[[0, 2]].tolist() == healthy.token[[0, 2]].tolist()
    assert 0 <= sampled.token[1] < 60
    assert not sampled.log_prob[1].isfinite()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 12), st.integers(2, 500), st.integers(0, FOLDS - 1), st.integers(0, 1000), st.integers(1, 8))
def test_equal_values_come_in_the_order_of_their_places(
    count: int, blocks: int, rest: int, seed: int, steps: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(3, blocks * FOLDS + rest, generator=generator) * steps).round()
    found, positions = largest_in_order(values, count)
    for row, other in enumerate(values.tolist()):
        expected = sorted(range(len(other)), key=lambda position, other=other: (-other[position], position))[:count]
        assert positions[row].tolist() == expected
        assert found[row].tolist() == [other[position] for position in expected]


@pytest.mark.parametrize("row_filter", [CandidateFilter.TOP_K, CandidateFilter.TOP_P])
def test_a_token_among_equals_does_not_depend_on_the_neighbours(row_filter: CandidateFilter) -> None:
    generator = torch.Generator().manual_seed(8)
    V, tokens = 30_000, torch.zeros(2, 0, dtype=torch.int64)
    logits = (2 * torch.randn(2, V, generator=generator)).round()
    for number in range(20):
        uniform = torch.rand(2, generator=generator)
        top_k = torch.tensor([5 if row_filter is CandidateFilter.TOP_K else V, 90])
        parameters = DecodingParameterRows(torch.ones(2), top_k, torch.tensor([0.3, 1.0]), torch.ones(2))
        first = DecodingParameterRows(*(column[:1] for column in parameters))
        alone = sample_batch(
            logits[:1].clone(), tokens[:1], first, uniform[:1], BatchTraits([row_filter], max_top_k=5, top_log_probs=2)
        )
        traits = BatchTraits([row_filter, CandidateFilter.TOP_K], max_top_k=90, top_log_probs=20)
        beside = sample_batch(logits.clone(), tokens, parameters, uniform, traits)
        assert alone.token[0] == beside.token[0], number
        assert alone.top_ids is not None
        assert beside.top_ids is not None
        assert alone.top_ids[0].tolist() == beside.top_ids[0, :2].tolist()


def test_no_probability_exceeds_one_at_a_low_temperature() -> None:
    """If one token has all the probability, rounding must not make it exceed 1."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(64, 5000)
    logits[:, 7] = 18 + 4 * torch.rand(64)
    ones = torch.ones(64)
    parameters = DecodingParameterRows(0.01 * ones, (50 * ones).long(), ones, ones)
    traits = BatchTraits([CandidateFilter.TOP_K] * 64, max_top_k=50, top_log_probs=3)
    sampled = sample_batch(logits, torch.empty(64, 0, dtype=torch.long), parameters, torch.rand(64), traits)
    assert sampled.top_log_probs is not None
    assert sampled.log_prob.max() <= 0.0
    assert sampled.top_log_probs.max() <= 0.0
    assert sampled.entropy.max() < 1e-6
