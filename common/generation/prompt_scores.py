"""How likely the model held the tokens of a prompt: log-softmax of the raw logits at each position before them.

Made from the states of the prefill, some positions at a time, so that memory stays bounded whatever the prompt.
Leaves out: tokens of a long prompt that are outside the model's window; nothing is known of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.generation.sampling.sample import largest_in_order

POSITIONS_AT_ONCE = 64
"""Rows of V numbers that are held together."""


class PromptScore(NamedTuple):
    """One token of a prompt; `log_prob` is None where nothing before it was seen. `alternatives` fall."""

    token_id: int
    log_prob: float | None
    alternatives: list[tuple[int, float]]


def score_prompt(
    head: Callable[[Tensor], Tensor], states: Tensor, tokens: Sequence[int], alternatives: int
) -> list[PromptScore]:
    """The scores of `tokens`, whose states (T, D) `head` turns into logits, with so many likeliest tokens each."""
    scores = [PromptScore(tokens[0], None, [])]
    following = torch.tensor(tokens[1:], device=states.device)
    for first in range(0, len(following), POSITIONS_AT_ONCE):
        wanted = following[first : first + POSITIONS_AT_ONCE]
        log_probs = head(states[first : first + len(wanted)]).log_softmax(1)
        values = log_probs.gather(1, wanted[:, None])[:, 0].tolist()
        best_values, best_ids = largest_in_order(log_probs, min(alternatives, log_probs.shape[1]))
        likeliest = zip(best_ids.tolist(), best_values.tolist(), strict=True)
        scores += [
            PromptScore(token, value, list(zip(*best, strict=True)))
            for token, value, best in zip(wanted.tolist(), values, likeliest, strict=True)
        ]
    return scores
