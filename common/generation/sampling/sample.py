"""Sampling of one token from raw logits, for B rows that each have their own parameters.

The order is fixed: repetition penalty over the set of tokens in the sequence, temperature, softmax, top-p, top-k,
renormalise, sample. All functions are pure and take randomness as uniform numbers, so the result of a row does not
depend on the other rows. Only `largest_in_order` waits for the device.

Both filters keep a prefix of the descending order, and together they keep the shorter prefix. So the largest
`max_candidates` logits and the total mass give the exact result as long as no row's top-k is above `max_candidates`,
and the vocabulary does not have to be sorted.

Shapes: B rows, V vocabulary, N = min(max_candidates, V) candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.controller import DecodingParameterRows

FOLDS = 24
"""Number of entries of a row that `largest` groups into one column and compares by their maximum."""
_LEAST_LOGIT = -1000.0
"""Lower bound of scored logits, instead of −inf. Its exponential is 0 in float32, and its product with 0 is 0, not
NaN."""


class Scores(NamedTuple):
    """The scored distribution: after penalty and temperature, before the filters.

    logits (B, V) with maximum 0 in every row; log_mass (B,) the logarithm of the sum of their exponentials;
    entropy (B,) in nats.
    """

    logits: Tensor
    log_mass: Tensor
    entropy: Tensor


class Candidates(NamedTuple):
    """Token ids (B, N) and the probabilities (B, N) with which they are sampled, descending; 0 for filtered tokens."""

    ids: Tensor
    probabilities: Tensor


class SampledTokens(NamedTuple):
    """The sampled tokens of B rows; all fields are (B,).

    token is int64; log_prob and entropy (nats) belong to the scored distribution, sampling_entropy (nats) to the
    distribution from which the token is sampled.
    """

    token: Tensor
    log_prob: Tensor
    entropy: Tensor
    sampling_entropy: Tensor


def scored_logits(logits: Tensor, seen: Tensor, repetition_penalty: Tensor, temperature: Tensor) -> Tensor:
    """Return logits (B, V) after the penalty on tokens in `seen` (B, V) bool and division by the temperature (B,).

    A positive logit of a seen token is divided by the penalty, a negative one multiplied by it.
    """
    logits = logits.float()
    penalty = repetition_penalty[:, None]
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, penalised, logits) / temperature[:, None]


def score(logits: Tensor, seen: Tensor, parameters: DecodingParameterRows) -> Scores:
    """Return the scored distribution of raw logits (B, V). Impossible tokens (−inf) add 0 to its entropy."""
    return _scores(scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature))


def score_sequences(logits: Tensor, tokens: Tensor, parameters: DecodingParameterRows) -> Scores:
    """Return the same as `score`, but computed from token ids.

    This is several times faster, because only the logits of these tokens change. The tokens (B, S) int64 are padded
    with negative numbers, but not in the first column.
    """
    temperature, penalty = parameters.temperature[:, None], parameters.repetition_penalty[:, None]
    ids = torch.where(tokens < 0, tokens[:, :1], tokens)
    adjusted = logits.gather(1, ids).float()
    adjusted = torch.where(adjusted > 0, adjusted / penalty, adjusted * penalty) / temperature
    # For a repeated token, the same value is written again.
    return _scores((logits.float() / temperature).scatter_(1, ids, adjusted))


def _scores(scored: Tensor) -> Scores:
    """Return the scored distribution with logits `scored`, which are changed in place and are part of the result."""
    scored.sub_(scored.amax(1, keepdim=True)).clamp_(min=_LEAST_LOGIT)
    weights = scored.exp()
    mass = weights.sum(1)
    log_mass = mass.log()
    entropy = log_mass - torch.linalg.vecdot(weights, scored) / mass
    return Scores(scored, log_mass, entropy.clamp(min=0.0))


def largest(values: Tensor, count: int, *, ordered: bool = True) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of each row of values (B, V) and their positions, both (B, count).

    They are in descending order if `ordered`. The algorithm folds each row into `FOLDS` lines of C = V // FOLDS
    columns, so that column c has positions c, c + C, c + 2C, … The largest values are in the `count` columns with the
    largest maxima, which are found recursively. So the vocabulary is read once, with vector instructions over
    neighbouring columns, and only a few hundred entries are searched.
    """
    B, V = values.shape
    C = V // FOLDS
    if count * 4 > C:
        top, position = values.topk(count, dim=1, sorted=ordered)
        return top, position
    folded = torch.unflatten(values[:, : FOLDS * C], 1, (FOLDS, C))
    _, columns = largest(folded.amax(1), count, ordered=False)
    found = folded.gather(2, columns[:, None].expand(B, FOLDS, count)).flatten(1)
    if FOLDS * C < V:
        found = torch.cat((found, values[:, FOLDS * C :]), dim=1)
    top, position = found.topk(count, dim=1, sorted=ordered)
    line = position // count
    in_columns = line * C + columns.gather(1, position - line * count)
    if FOLDS * C == V:
        return top, in_columns
    return top, torch.where(position < FOLDS * count, in_columns, position + (FOLDS * C - FOLDS * count))


def largest_in_order(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the result of `largest` with equal values ordered by their positions.

    Therefore the first k results do not depend on `count`. The function waits for the device, and is slower if values
    are equal.
    """
    V = values.shape[1]
    if count >= V:
        every, at = torch.sort(values, dim=1, descending=True, stable=True)
        return every, at
    found, places = largest(values, count + 1)
    if bool((found[:, 1:] == found[:, :-1]).any()):
        places, order = places.sort(1)
        found, order = torch.sort(found.gather(1, order), dim=1, descending=True, stable=True)
        places = places.gather(1, order)
        least, before = found[:, -1], found[:, -2]
        # `largest` may have found later positions of the smallest value, although earlier ones exist.
        for row in (least == before).nonzero()[:, 0].tolist():
            tied = found[row] == least[row]
            places[row, tied] = (values[row] == least[row]).nonzero()[: int(tied.sum()), 0]
    return found[:, :count], places[:, :count]


def filter_candidates(
    scores: Scores, parameters: DecodingParameterRows, *, max_candidates: int | None = None
) -> Candidates:
    """Apply top-p, then top-k, then renormalise.

    Top-p keeps a token if the mass before it in descending order is ≤ p, and everything when p ≥ 1. `max_candidates`
    must be at least every row's top-k; with None the whole vocabulary is sorted.
    """
    V = scores.logits.shape[1]
    values, ids = largest(scores.logits, V if max_candidates is None else min(max_candidates, V))
    return filter_largest(values - scores.log_mass[:, None], ids, parameters)


def filter_largest(
    log_probs: Tensor, ids: Tensor, parameters: DecodingParameterRows, *, any_top_p: bool = True
) -> Candidates:
    """Apply the filters to the largest log-probabilities (B, N), in descending order, and their ids (B, N).

    With `any_top_p` False every top-p must be 1 or more.
    """
    probabilities = log_probs.exp()
    rank = torch.arange(ids.shape[1], device=ids.device)
    kept = rank < parameters.top_k.clamp(min=1)[:, None]
    if any_top_p:
        before = pad(probabilities.cumsum(1)[:, :-1], (1, 0))
        top_p = parameters.top_p[:, None]
        kept &= (before <= top_p) | (top_p >= 1.0)
    probabilities = torch.where(kept, probabilities, 0.0)
    # The order in which float32 numbers are added depends on N. The sum in float64, rounded, does not.
    total = probabilities.sum(1, keepdim=True, dtype=torch.float64).to(probabilities.dtype)
    return Candidates(ids, probabilities / total)


def filtered_probabilities(
    scores: Scores, parameters: DecodingParameterRows, *, max_candidates: int | None = None
) -> Tensor:
    """Return the probability (B, V) with which each token of the vocabulary is sampled; 0 for filtered tokens."""
    candidates = filter_candidates(scores, parameters, max_candidates=max_candidates)
    return torch.zeros_like(scores.logits).scatter_(1, candidates.ids, candidates.probabilities)


def pick(candidates: Candidates, uniform: Tensor) -> Tensor:
    """Return the token (B,) at which the cumulative probability exceeds `uniform` (B,) in [0, 1)."""
    cumulative = candidates.probabilities.cumsum(1)
    position = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
    # Rounding must not select a token after the last token with a positive probability.
    position = torch.minimum(position, (candidates.probabilities > 0).sum(1) - 1).clamp(min=0)
    return candidates.ids.gather(1, position[:, None])[:, 0]


def sample_tokens(
    logits: Tensor,
    seen: Tensor,
    parameters: DecodingParameterRows,
    uniform: Tensor,
    *,
    max_candidates: int | None = None,
) -> SampledTokens:
    """Sample one token per row.

    logits (B, V) are raw; seen (B, V) bool marks the tokens so far; uniform (B,) has random numbers in [0, 1).
    """
    return sample_scored(score(logits, seen, parameters), parameters, uniform, max_candidates=max_candidates)


def sample_scored(
    scores: Scores, parameters: DecodingParameterRows, uniform: Tensor, *, max_candidates: int | None = None
) -> SampledTokens:
    """Sample one token per row like `sample_tokens`, from an already scored distribution."""
    candidates = filter_candidates(scores, parameters, max_candidates=max_candidates)
    token = pick(candidates, uniform)
    log_prob = scores.logits.gather(1, token[:, None])[:, 0] - scores.log_mass
    return SampledTokens(token, log_prob, scores.entropy, sampling_entropy(candidates))


def sampling_entropy(candidates: Candidates) -> Tensor:
    """Return the entropy (B,) in nats of the distribution from which tokens are sampled; 0·ln 0 counts as 0."""
    entropy: Tensor = torch.special.entr(candidates.probabilities).sum(1)
    return entropy
