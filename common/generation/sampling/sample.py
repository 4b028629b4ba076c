"""From raw logits to one sampled token, for B rows with parameters of their own.

The order is fixed: repetition penalty over the set of tokens in the sequence, temperature, softmax, top-p, top-k,
renormalise, sample. All functions are pure; randomness comes in as uniform numbers, so a row's result does not depend
on what else is in its batch. Nothing waits for the device.

Both filters keep a prefix of the descending order, and together they keep the shorter one. So the largest `most` logits
and the total mass decide exactly, as long as no row's top-k is above `most`: the vocabulary is not sorted.

Shapes: B rows, V vocabulary, N = min(most, V) candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.controller import DecodingParameterRows

FOLDS = 24
"""Entries that `largest` judges by their maximum."""
_LEAST_LOGIT = -1000.0
"""exp of it is 0 in float32, and 0 times it is 0: keeps −inf out of sums."""


class Scores(NamedTuple):
    """The scored distribution: after penalty and temperature, before the filters.

    logits (B, V) with maximum 0 in every row; log_mass (B,) the logarithm of the sum of their exponentials;
    entropy (B,) in nats.
    """

    logits: Tensor
    log_mass: Tensor
    entropy: Tensor


class Candidates(NamedTuple):
    """The distribution sampled from: ids and probabilities (B, N), falling, 0 where filtered away."""

    ids: Tensor
    probabilities: Tensor


class SampledTokens(NamedTuple):
    """One step of B rows, all (B,): token int64, its log-probability and the entropy of the scored distribution, and
    the entropy of the distribution sampled from, in nats."""

    token: Tensor
    log_prob: Tensor
    entropy: Tensor
    sampling_entropy: Tensor


def scored_logits(logits: Tensor, seen: Tensor, repetition_penalty: Tensor, temperature: Tensor) -> Tensor:
    """Logits (B, V) after the penalty on tokens in `seen` (B, V) bool and division by the temperature (B,).

    A positive logit of a seen token is divided by the penalty, a negative one multiplied.
    """
    logits = logits.float()
    penalty = repetition_penalty[:, None]
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, penalised, logits) / temperature[:, None]


def score(logits: Tensor, seen: Tensor, parameters: DecodingParameterRows) -> Scores:
    """The scored distribution of raw logits (B, V); its entropy counts impossible tokens (−inf) as 0."""
    return _scores(scored_logits(logits, seen, parameters.repetition_penalty, parameters.temperature))


def score_sequences(logits: Tensor, tokens: Tensor, parameters: DecodingParameterRows) -> Scores:
    """`score` from the sequences themselves, several times faster: only the logits of their tokens are penalised.

    tokens (B, S) int64, negative where there is none, but never so in the first column.
    """
    temperature, penalty = parameters.temperature[:, None], parameters.repetition_penalty[:, None]
    ids = torch.where(tokens < 0, tokens[:, :1], tokens)
    held = logits.gather(1, ids).float()
    held = torch.where(held > 0, held / penalty, held * penalty) / temperature
    # A repeated token writes the same value again.
    return _scores((logits.float() / temperature).scatter_(1, ids, held))


def _scores(scored: Tensor) -> Scores:
    """Takes `scored` over and changes it in place."""
    scored.sub_(scored.amax(1, keepdim=True)).clamp_(min=_LEAST_LOGIT)
    weights = scored.exp()
    mass = weights.sum(1)
    log_mass = mass.log()
    entropy = log_mass - torch.linalg.vecdot(weights, scored) / mass
    return Scores(scored, log_mass, entropy.clamp(min=0.0))


def largest(values: Tensor, count: int, *, ordered: bool = True) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row of values (B, V), falling if `ordered`, and their places, both (B, count).

    Column c of a row that is folded into `FOLDS` lines holds places c, c + C, c + 2C, … The largest lie in the columns
    with the largest maxima, which are found in the same way, and there are at most `count` such columns. So the
    vocabulary is read once, with vectors of neighbouring columns, and only a few hundred entries are searched.
    """
    B, V = values.shape
    C = V // FOLDS
    if count * 4 > C:
        top, place = values.topk(count, dim=1, sorted=ordered)
        return top, place
    folded = torch.unflatten(values[:, : FOLDS * C], 1, (FOLDS, C))
    _, columns = largest(folded.amax(1), count, ordered=False)
    found = folded.gather(2, columns[:, None].expand(B, FOLDS, count)).flatten(1)
    if FOLDS * C < V:
        found = torch.cat((found, values[:, FOLDS * C :]), dim=1)
    top, place = found.topk(count, dim=1, sorted=ordered)
    line = place // count
    in_columns = line * C + columns.gather(1, place - line * count)
    if FOLDS * C == V:
        return top, in_columns
    return top, torch.where(place < FOLDS * count, in_columns, place + (FOLDS * C - FOLDS * count))


def largest_in_order(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`largest`, but of equal values the one with the smaller place comes first.

    So the first k do not depend on `count`. Waits for the device, and takes longer where values are equal.
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
        for row in (least == before).nonzero()[:, 0].tolist():  # more of them may have been left out
            held = found[row] == least[row]
            places[row, held] = (values[row] == least[row]).nonzero()[: int(held.sum()), 0]
    return found[:, :count], places[:, :count]


def filter_candidates(scores: Scores, parameters: DecodingParameterRows, *, most: int | None = None) -> Candidates:
    """Top-p, then top-k, then renormalise.

    Top-p keeps a token while the mass before it in descending order is ≤ p, and everything when p ≥ 1. `most` is at
    least every row's top-k (None: the whole vocabulary is sorted).
    """
    V = scores.logits.shape[1]
    values, ids = largest(scores.logits, V if most is None else min(most, V))
    return filter_largest(values - scores.log_mass[:, None], ids, parameters)


def filter_largest(
    log_probs: Tensor, ids: Tensor, parameters: DecodingParameterRows, *, nucleus: bool = True
) -> Candidates:
    """`filter_candidates` from the largest log-probabilities (B, N), falling, and their ids (B, N).

    Without `nucleus` every top-p is 1 or more.
    """
    probabilities = log_probs.exp()
    rank = torch.arange(ids.shape[1], device=ids.device)
    kept = rank < parameters.top_k.clamp(min=1)[:, None]
    if nucleus:
        before = pad(probabilities.cumsum(1)[:, :-1], (1, 0))
        top_p = parameters.top_p[:, None]
        kept &= (before <= top_p) | (top_p >= 1.0)
    probabilities = torch.where(kept, probabilities, 0.0)
    return Candidates(ids, probabilities / probabilities.sum(1, keepdim=True))


def filtered_probabilities(scores: Scores, parameters: DecodingParameterRows, *, most: int | None = None) -> Tensor:
    """The distribution sampled from, over the whole vocabulary (B, V)."""
    candidates = filter_candidates(scores, parameters, most=most)
    return torch.zeros_like(scores.logits).scatter_(1, candidates.ids, candidates.probabilities)


def pick(candidates: Candidates, uniform: Tensor) -> Tensor:
    """The token (B,) at which the cumulative probability exceeds `uniform` (B,) in [0, 1)."""
    cumulative = candidates.probabilities.cumsum(1)
    place = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
    # Rounding must not reach beyond the last possible token.
    place = torch.minimum(place, (candidates.probabilities > 0).sum(1) - 1).clamp(min=0)
    return candidates.ids.gather(1, place[:, None])[:, 0]


def sample_tokens(
    logits: Tensor, seen: Tensor, parameters: DecodingParameterRows, uniform: Tensor, *, most: int | None = None
) -> SampledTokens:
    """One token per row from raw logits (B, V), tokens seen so far (B, V) bool and uniform numbers (B,) in [0, 1)."""
    return sample_scored(score(logits, seen, parameters), parameters, uniform, most=most)


def sample_scored(
    scores: Scores, parameters: DecodingParameterRows, uniform: Tensor, *, most: int | None = None
) -> SampledTokens:
    """`sample_tokens` from a distribution that is scored already."""
    candidates = filter_candidates(scores, parameters, most=most)
    token = pick(candidates, uniform)
    log_prob = scores.logits.gather(1, token[:, None])[:, 0] - scores.log_mass
    return SampledTokens(token, log_prob, scores.entropy, sampling_entropy(candidates))


def sampling_entropy(candidates: Candidates) -> Tensor:
    """Entropy (B,) in nats of the distribution sampled from; 0·ln 0 counts 0."""
    entropy: Tensor = torch.special.entr(candidates.probabilities).sum(1)
    return entropy
