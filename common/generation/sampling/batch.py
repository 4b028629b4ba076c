"""Sampling of one token for each row of a running batch, in which each row has its own parameters and filters.

The maths is that of `sampling.sample`, arranged for speed. The repetition penalty changes only the logits of tokens in
the sequence. Log-probabilities and entropy come from one pass of exponentials over a few rows at a time, which fit into
the processor's cache. For rows with a top-k, the candidates are the `max_top_k` largest entries. Rows without a filter
are sampled from the whole vocabulary without a sort. For rows with top-p alone, the candidates are the largest entries
whose mass reaches top-p.

Equal logits, which int8 and bfloat16 make likely, are ordered by token id, so that a sequence does not depend on the
top-k of others in the batch. This ordering waits for the device. Shapes: n rows, V vocabulary, S tokens of the longest
sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from common.controller import DecodingParameterRows, exponentials
from common.generation.sampling.sample import (
    Candidates,
    filter_largest,
    largest,
    largest_in_order,
    pick,
    sampling_entropy,
)

ROWS_AT_ONCE = 32
"""Number of rows (V numbers each) that are processed together."""
NUCLEUS_CANDIDATES = 1024
"""Number of candidates that are tried for top-p without top-k before the whole vocabulary is sorted."""


class CandidateFilter(Enum):
    """The filter that determines the candidates of a row."""

    TOP_K = "top-k, after top-p"
    TOP_P = "top-p alone"
    FULL_DISTRIBUTION = "the full distribution"


class SampledBatch(NamedTuple):
    """The sampled tokens of n rows.

    token (n,) int64; log_prob and entropy (n,) of the scored distribution; sampling_entropy (n,) of the distribution
    sampled from. `top_ids` and `top_log_probs` (n, N) are the most likely tokens of the scored distribution in
    descending order, or None if they were not requested.
    """

    token: Tensor
    log_prob: Tensor
    entropy: Tensor
    sampling_entropy: Tensor
    top_ids: Tensor | None
    top_log_probs: Tensor | None


class BatchTraits(NamedTuple):
    """Properties of a batch that are known on the host, without waiting for the device."""

    filters: Sequence[CandidateFilter]
    """The filter of each row."""
    max_top_k: int
    """The largest top-k that a row may have."""
    top_log_probs: int = 0
    """Number of most likely tokens that are returned with each sampled token."""
    equal_lengths: bool = False
    """Whether all sequences have the same length, that is, whether no row has padding."""
    any_top_p: bool = True
    """Whether any row may have a top-p below 1."""


def sample_batch(
    logits: Tensor,
    tokens: Tensor,
    parameters: DecodingParameterRows,
    uniform: Tensor,
    traits: BatchTraits,
    long_sequences: Sequence[tuple[int, Tensor]] = (),
) -> SampledBatch:
    """Sample one token per row from raw logits (n, V), which are overwritten.

    tokens (n, S) int64 is the sequence of each row, padded with negative numbers; uniform (n,) has random numbers in
    [0, 1). `long_sequences` has pairs of a row and its tokens (1, any number). For these rows the repetition penalty
    uses those tokens instead of `tokens`, so that S stays small.
    """
    if long_sequences:
        penalty = parameters.repetition_penalty.clone()
        for row, row_tokens in long_sequences:
            apply_repetition_penalty(logits[row : row + 1], row_tokens, penalty[row : row + 1], equal_lengths=True)
        penalty[[row for row, _ in long_sequences]] = 1.0
        parameters = parameters._replace(repetition_penalty=penalty)
    traits = traits._replace(max_top_k=min(traits.max_top_k, logits.shape[1]))
    if len(logits) <= ROWS_AT_ONCE:
        return _sample_rows(logits, tokens, parameters, uniform, traits)
    parts = [
        _sample_rows(
            logits[rows],
            tokens[rows],
            DecodingParameterRows(*(values[rows] for values in parameters)),
            uniform[rows],
            traits._replace(filters=traits.filters[rows]),
        )
        for rows in (slice(first, first + ROWS_AT_ONCE) for first in range(0, len(logits), ROWS_AT_ONCE))
    ]
    return _concatenated(parts)


def _sample_rows(
    logits: Tensor, tokens: Tensor, parameters: DecodingParameterRows, uniform: Tensor, traits: BatchTraits
) -> SampledBatch:
    filters, top_log_probs = traits.filters, traits.top_log_probs
    apply_repetition_penalty(logits, tokens, parameters.repetition_penalty, equal_lengths=traits.equal_lengths)
    # Multiplying by the reciprocal is several times faster than dividing by a column.
    scored = logits.mul_(parameters.temperature.reciprocal()[:, None])
    count = max(traits.max_top_k if CandidateFilter.TOP_K in filters else 1, top_log_probs)
    if count > 1 or CandidateFilter.TOP_K in filters:
        values, ids = largest_in_order(scored, min(count, scored.shape[1]))
    else:
        values, ids = largest(scored, 1)
    weights = exponentials(scored, values[:, :1])
    mass = weights.sum(1)
    log_mass = values[:, 0] + mass.log()
    values -= log_mass[:, None]
    candidates = filter_largest(values, ids, parameters, any_top_p=traits.any_top_p)
    token, sampled_entropy = pick(candidates, uniform), sampling_entropy(candidates)
    others = _rows_without_top_k(filters)
    for rows, row_filter in others:
        if row_filter is CandidateFilter.FULL_DISTRIBUTION:
            token[rows] = sample_full_distribution(weights[rows], uniform[rows])
        else:
            row_parameters = DecodingParameterRows(*(column[rows] for column in parameters))
            nucleus = _nucleus(scored[rows] - log_mass[rows, None], row_parameters)
            token[rows], sampled_entropy[rows] = pick(nucleus, uniform[rows]), sampling_entropy(nucleus)
    # Keep the token inside the vocabulary even if logits are not finite, which the caller detects by log_prob.
    token.clamp_(0, scored.shape[1] - 1)
    log_prob = scored.gather(1, token[:, None])[:, 0] - log_mass
    entropy = (log_mass - weights.mul_(scored).sum(1) / mass).clamp_(min=0.0)
    for rows, row_filter in others:
        if row_filter is CandidateFilter.FULL_DISTRIBUTION:
            sampled_entropy[rows] = entropy[rows]
    if not top_log_probs:
        return SampledBatch(token, log_prob, entropy, sampled_entropy, None, None)
    return SampledBatch(token, log_prob, entropy, sampled_entropy, ids[:, :top_log_probs], values[:, :top_log_probs])


def apply_repetition_penalty(logits: Tensor, tokens: Tensor, penalty: Tensor, *, equal_lengths: bool = False) -> None:
    """Apply the repetition penalty to logits (n, V), in place.

    For each of the tokens (n, S), the logit is divided by penalty (n,) if it is positive, otherwise multiplied by it.
    With `equal_lengths`, no token may be negative.
    """
    if tokens.shape[1] == 0:
        return
    penalty_column = penalty[:, None]
    if equal_lengths:
        logits.scatter_(1, tokens, _penalised(logits.gather(1, tokens), penalty_column))
        return
    present = tokens >= 0
    ids = torch.where(present, tokens, 0)
    # For padding, write the value that token 0 gets anyway: penalised if the sequence has token 0, else unchanged.
    first = logits[:, :1]
    first = torch.where((tokens == 0).any(1, keepdim=True), _penalised(first, penalty_column), first)
    logits.scatter_(1, ids, torch.where(present, _penalised(logits.gather(1, ids), penalty_column), first))


def _penalised(logits: Tensor, penalty_column: Tensor) -> Tensor:
    return torch.where(logits > 0, logits / penalty_column, logits * penalty_column)


def _rows_without_top_k(filters: Sequence[CandidateFilter]) -> list[tuple[list[int], CandidateFilter]]:
    rows = {
        row_filter: [row for row, other in enumerate(filters) if other is row_filter]
        for row_filter in (CandidateFilter.FULL_DISTRIBUTION, CandidateFilter.TOP_P)
    }
    return [(found, row_filter) for row_filter, found in rows.items() if found]


def sample_full_distribution(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return the token (n,) at which the cumulative weight, in the order of token ids, exceeds `uniform` × total.

    weights (n, V) are not normalised; uniform (n,) is in [0, 1).
    """
    cumulative = weights.cumsum(1)
    target = uniform[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True)
    # Rounding must not select a token after the last token with a positive weight.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(token, last)[:, 0]


def _nucleus(log_probs: Tensor, parameters: DecodingParameterRows) -> Candidates:
    V = log_probs.shape[1]
    values, ids = largest_in_order(log_probs, min(NUCLEUS_CANDIDATES, V))
    if bool((values.exp().sum(1) <= parameters.top_p).any()):
        values, ids = largest_in_order(log_probs, V)
    return filter_largest(values, ids, parameters)


def _concatenated(parts: list[SampledBatch]) -> SampledBatch:
    def column(values: list[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present) if present else None

    return SampledBatch(
        torch.cat([part.token for part in parts]),
        torch.cat([part.log_prob for part in parts]),
        torch.cat([part.entropy for part in parts]),
        torch.cat([part.sampling_entropy for part in parts]),
        column([part.top_ids for part in parts]),
        column([part.top_log_probs for part in parts]),
    )
