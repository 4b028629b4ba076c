"""One token for each row of a running batch, whose rows have parameters and filters of their own.

The maths is that of `sampling`; here it is arranged for speed. The penalty changes only the logits of tokens in the
sequence. Log-probabilities and entropy come from one softmax over a few rows at a time, which then still lie in the
cache. The candidates of rows with a top-k are the `most` largest entries; a row without any filter is drawn from the
whole vocabulary in its own order, without a sort; one with top-p alone needs as many candidates as hold that mass.

Shapes: n rows, V vocabulary, S tokens of the longest sequence. Nothing waits for the device but top-p without top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from common.controller import DecodingParameterRows
from common.generation.sampling import Candidates, filter_largest, largest, pick, sampling_entropy

ROWS_AT_ONCE = 16
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


def draw(
    logits: Tensor,
    tokens: Tensor,
    parameters: DecodingParameterRows,
    uniform: Tensor,
    filters: Sequence[Filter],
    *,
    most: int,
    alternatives: int = 0,
) -> Drawn:
    """One token per row from raw logits (n, V), which are overwritten.

    tokens (n, S) int64 is the sequence of each row, negative where there is none; uniform (n,) in [0, 1); `most` is at
    least every top-k of the rows that have one; `alternatives` most likely tokens are told with each.
    """
    parts = [
        _draw(
            logits[rows],
            tokens[rows],
            DecodingParameterRows(*(values[rows] for values in parameters)),
            uniform[rows],
            filters[rows],
            min(most, logits.shape[1]),
            alternatives,
        )
        for rows in (slice(first, first + ROWS_AT_ONCE) for first in range(0, len(logits), ROWS_AT_ONCE))
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _draw(
    logits: Tensor,
    tokens: Tensor,
    parameters: DecodingParameterRows,
    uniform: Tensor,
    filters: Sequence[Filter],
    most: int,
    alternatives: int,
) -> Drawn:
    penalise(logits, tokens, parameters.repetition_penalty)
    log_probs = logits.div_(parameters.temperature[:, None]).log_softmax(1)
    probabilities = torch.exp(log_probs, out=logits)
    entropy = torch.linalg.vecdot(probabilities, log_probs).neg_().clamp_(min=0.0)
    count = max(most if Filter.TOP_K in filters else 1, alternatives)
    values, ids = largest(log_probs, min(count, log_probs.shape[1]))
    candidates = filter_largest(values, ids, parameters)
    token, spread = pick(candidates, uniform), sampling_entropy(candidates)
    for rows, kind in _others(filters):
        if kind is Filter.NOTHING:
            token[rows], spread[rows] = draw_from_all(probabilities[rows], uniform[rows]), entropy[rows]
        else:
            wanted = DecodingParameterRows(*(column[rows] for column in parameters))
            nucleus = _nucleus(log_probs[rows], wanted)
            token[rows], spread[rows] = pick(nucleus, uniform[rows]), sampling_entropy(nucleus)
    log_prob = log_probs.gather(1, token[:, None])[:, 0]
    if not alternatives:
        return Drawn(token, log_prob, entropy, spread, None, None)
    return Drawn(token, log_prob, entropy, spread, ids[:, :alternatives], values[:, :alternatives])


def penalise(logits: Tensor, tokens: Tensor, penalty: Tensor) -> None:
    """In place: positive logits of the tokens (n, S) in a sequence are divided by penalty (n,), others multiplied."""
    if tokens.shape[1] == 0:
        return
    present = tokens >= 0
    ids = torch.where(present, tokens, 0)
    held, by = logits.gather(1, ids), penalty[:, None]
    held = torch.where(held > 0, held / by, held * by)
    # Absent places write what the first token of the vocabulary is to hold, penalised or not.
    first = logits[:, :1]
    first_seen = (tokens == 0).any(1, keepdim=True)
    first = torch.where(first_seen, torch.where(first > 0, first / by, first * by), first)
    logits.scatter_(1, ids, torch.where(present, held, first))


def _others(filters: Sequence[Filter]) -> list[tuple[list[int], Filter]]:
    rows = {kind: [row for row, its in enumerate(filters) if its is kind] for kind in (Filter.NOTHING, Filter.TOP_P)}
    return [(found, kind) for kind, found in rows.items() if found]


def draw_from_all(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability, in the order of the vocabulary, exceeds `uniform`."""
    cumulative = probabilities.cumsum(1)
    target = uniform[:, None] * cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target, right=True)
    # Rounding must not reach beyond the last possible token.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(place, last)[:, 0]


def _nucleus(log_probs: Tensor, parameters: DecodingParameterRows) -> Candidates:
    V = log_probs.shape[1]
    values, ids = largest(log_probs, min(NUCLEUS_CANDIDATES, V))
    if bool((values.exp().sum(1) <= parameters.top_p).any()):
        values, ids = largest(log_probs, V)
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
