"""One token for each row of a running batch, whose rows have parameters and filters of their own.

The maths is that of `sampling`; here it is arranged for speed. The penalty changes only the logits of tokens in the
sequence. Log-probabilities and entropy come from one pass of exponentials over a few rows at a time, which then still
lie in the cache. The candidates of rows with a top-k are the `most` largest entries; a row without any filter is drawn
from the whole vocabulary in its own order, without a sort; one with top-p alone needs as many candidates as hold that
mass.

Shapes: n rows, V vocabulary, S tokens of the longest sequence. Candidates wait for the device: equal logits, which int8
and bfloat16 make likely, are put in the order of the vocabulary, so that a text does not depend on its neighbours' k.
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
"""Rows of V numbers that are worked on together."""
NUCLEUS_CANDIDATES = 1024
"""Tried before a sort of the whole vocabulary, for top-p without top-k."""


class Filter(Enum):
    """What decides the candidates of a row."""

    TOP_K = "top-k, after top-p"
    TOP_P = "top-p alone"
    NOTHING = "the full distribution"


class Drawn(NamedTuple):
    """token (n,) int64; log_prob, entropy (n,) of the scored distribution; sampling_entropy (n,); `top_ids` and
    `top_log_probs` (n, N) the most likely tokens of the scored distribution, falling, where they were asked for."""

    token: Tensor
    log_prob: Tensor
    entropy: Tensor
    sampling_entropy: Tensor
    top_ids: Tensor | None
    top_log_probs: Tensor | None


class Known(NamedTuple):
    """What the host knows of the rows: their filters; the largest top-k that a row may have; how many of the most
    likely tokens are told with each; whether all sequences are of one length (`even`); whether any row may have a top-p
    below 1 (`nucleus`)."""

    filters: Sequence[Filter]
    most: int
    alternatives: int = 0
    even: bool = False
    nucleus: bool = True


def draw(
    logits: Tensor,
    tokens: Tensor,
    parameters: DecodingParameterRows,
    uniform: Tensor,
    known: Known,
    long: Sequence[tuple[int, Tensor]] = (),
) -> Drawn:
    """One token per row from raw logits (n, V), which are overwritten.

    tokens (n, S) int64 is the sequence of each row, negative where there is none; uniform (n,) in [0, 1). Rows in
    `long` have their own tokens (1, any number) there, so that they do not widen those of the others.
    """
    if long:
        penalty = parameters.repetition_penalty.clone()
        for row, its in long:
            penalise(logits[row : row + 1], its, penalty[row : row + 1], even=True)
        penalty[[row for row, _ in long]] = 1.0
        parameters = parameters._replace(repetition_penalty=penalty)
    known = known._replace(most=min(known.most, logits.shape[1]))
    if len(logits) <= ROWS_AT_ONCE:
        return _draw(logits, tokens, parameters, uniform, known)
    parts = [
        _draw(
            logits[rows],
            tokens[rows],
            DecodingParameterRows(*(values[rows] for values in parameters)),
            uniform[rows],
            known._replace(filters=known.filters[rows]),
        )
        for rows in (slice(first, first + ROWS_AT_ONCE) for first in range(0, len(logits), ROWS_AT_ONCE))
    ]
    return _joined(parts)


def _draw(logits: Tensor, tokens: Tensor, parameters: DecodingParameterRows, uniform: Tensor, known: Known) -> Drawn:
    filters, alternatives = known.filters, known.alternatives
    penalise(logits, tokens, parameters.repetition_penalty, even=known.even)
    # Multiplying is several times faster than dividing by a column.
    scored = logits.mul_(parameters.temperature.reciprocal()[:, None])
    count = max(known.most if Filter.TOP_K in filters else 1, alternatives)
    if count > 1 or Filter.TOP_K in filters:
        values, ids = largest_in_order(scored, min(count, scored.shape[1]))
    else:
        values, ids = largest(scored, 1)
    weights = exponentials(scored, values[:, :1])
    mass = weights.sum(1)
    log_mass = values[:, 0] + mass.log()
    values -= log_mass[:, None]
    candidates = filter_largest(values, ids, parameters, nucleus=known.nucleus)
    token, spread = pick(candidates, uniform), sampling_entropy(candidates)
    others = _others(filters)
    for rows, kind in others:
        if kind is Filter.NOTHING:
            token[rows] = draw_from_all(weights[rows], uniform[rows])
        else:
            wanted = DecodingParameterRows(*(column[rows] for column in parameters))
            nucleus = _nucleus(scored[rows] - log_mass[rows, None], wanted)
            token[rows], spread[rows] = pick(nucleus, uniform[rows]), sampling_entropy(nucleus)
    # Logits that are not finite must not lead outside the vocabulary: their row is told by its log-probability.
    token.clamp_(0, scored.shape[1] - 1)
    log_prob = scored.gather(1, token[:, None])[:, 0] - log_mass
    entropy = (log_mass - weights.mul_(scored).sum(1) / mass).clamp_(min=0.0)
    for rows, kind in others:
        if kind is Filter.NOTHING:
            spread[rows] = entropy[rows]
    if not alternatives:
        return Drawn(token, log_prob, entropy, spread, None, None)
    return Drawn(token, log_prob, entropy, spread, ids[:, :alternatives], values[:, :alternatives])


def penalise(logits: Tensor, tokens: Tensor, penalty: Tensor, *, even: bool = False) -> None:
    """In place: positive logits of the tokens (n, S) in a sequence are divided by penalty (n,), others multiplied.

    `even` promises that no token is negative.
    """
    if tokens.shape[1] == 0:
        return
    by = penalty[:, None]
    if even:
        logits.scatter_(1, tokens, _penalised(logits.gather(1, tokens), by))
        return
    present = tokens >= 0
    ids = torch.where(present, tokens, 0)
    # Absent places write what the first token of the vocabulary is to hold, penalised or not.
    first = logits[:, :1]
    first = torch.where((tokens == 0).any(1, keepdim=True), _penalised(first, by), first)
    logits.scatter_(1, ids, torch.where(present, _penalised(logits.gather(1, ids), by), first))


def _penalised(logits: Tensor, by: Tensor) -> Tensor:
    return torch.where(logits > 0, logits / by, logits * by)


def _others(filters: Sequence[Filter]) -> list[tuple[list[int], Filter]]:
    rows = {kind: [row for row, its in enumerate(filters) if its is kind] for kind in (Filter.NOTHING, Filter.TOP_P)}
    return [(found, kind) for kind, found in rows.items() if found]


def draw_from_all(weights: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative weight, in the order of the vocabulary, exceeds its part `uniform`."""
    cumulative = weights.cumsum(1)
    target = uniform[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True)
    # Rounding must not reach beyond the last possible token.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(place, last)[:, 0]


def _nucleus(log_probs: Tensor, parameters: DecodingParameterRows) -> Candidates:
    V = log_probs.shape[1]
    values, ids = largest_in_order(log_probs, min(NUCLEUS_CANDIDATES, V))
    if bool((values.exp().sum(1) <= parameters.top_p).any()):
        values, ids = largest_in_order(log_probs, V)
    return filter_largest(values, ids, parameters)


def _joined(parts: list[Drawn]) -> Drawn:
    def column(values: list[Tensor | None]) -> Tensor | None:
        present = [value for value in values if value is not None]
        return torch.cat(present) if present else None

    return Drawn(
        torch.cat([part.token for part in parts]),
        torch.cat([part.log_prob for part in parts]),
        torch.cat([part.entropy for part in parts]),
        torch.cat([part.sampling_entropy for part in parts]),
        column([part.top_ids for part in parts]),
        column([part.top_log_probs for part in parts]),
    )
