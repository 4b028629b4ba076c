"""Log-probabilities of the tokens of a prompt: log-softmax of the raw logits at the position before each token.

They are computed from the states of the prefill, some positions at a time, so that memory stays bounded for every
prompt length. Tokens of a long prompt that are outside the context window have no score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.generation.sampling.sample import largest_in_order

POSITIONS_AT_ONCE = 64
"""Number of positions whose logits (V numbers each) are in memory at the same time."""


class PromptScore(NamedTuple):
    """The score of one token of a prompt.

    `log_prob` is None for the first token and for tokens outside the context window. `alternatives` are the most likely
    tokens at that position with their log-probabilities, in descending order.
    """

    token_id: int
    log_prob: float | None
    alternatives: list[tuple[int, float]]


def score_prompt(
    head: Callable[[Tensor], Tensor], states: Tensor, tokens: Sequence[int], alternatives: int
) -> list[PromptScore]:
    """Return the scores of `tokens`, each with the `alternatives` most likely tokens at its position.

    `head` maps states (P, D) to logits (P, V); `states` (T, D) are those of `tokens`.
    """
    scores = [PromptScore(tokens[0], None, [])]
    following = torch.tensor(tokens[1:], device=states.device)
    for first in range(0, len(following), POSITIONS_AT_ONCE):
        part = following[first : first + POSITIONS_AT_ONCE]
        log_probs = head(states[first : first + len(part)]).log_softmax(1)
        values = log_probs.gather(1, part[:, None])[:, 0].tolist()
        best_values, best_ids = largest_in_order(log_probs, min(alternatives, log_probs.shape[1]))
        most_likely = zip(best_ids.tolist(), best_values.tolist(), strict=True)
        scores += [
            PromptScore(token, value, list(zip(*best, strict=True)))
            for token, value, best in zip(part.tolist(), values, most_likely, strict=True)
        ]
    return scores
