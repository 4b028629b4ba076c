"""The 64 numbers a policy sees before it picks the modulation of the next token.

`build_observation` counts one sequence from the start, plainly; `build_observations` does the same for B sequences from
the running counts of a `TokenHistory`, without a host sync. Training, ablation and serving use one or the other, so
there is one definition. Layout:

0 repetition · 1 entropy/10 · 2, 3 distinct bigrams, trigrams · 4, 5 last ten tokens: unique, most common ·
6 length/100 · 10–33 and 34–57 mean and deviation of 24 chunks of the hidden state · 58 progress · 59 one ·
60 previous action · the rest 0
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from common.controller.exponentials import LOG2_E
from common.controller.history import ABSENT, TokenHistory

OBSERVATION_DIM = 64
CHUNKS = 24
"""Pieces of the hidden state; d_model mod 24 entries at its end stay unused."""
RECENT = 10
"""Tokens that entries 4 and 5 look at."""
ENTROPY_SCALE = 10.0
LENGTH_SCALE = 100


def build_observation(
    tokens: Sequence[int],
    logits: Tensor,
    hidden: Tensor,
    *,
    step: int,
    episode_length: int,
    previous_action: float = 0.0,
) -> Tensor:
    """The observation (64,) float32 of one sequence.

    `tokens` is the whole sequence, prompt included; `logits` (V,) are the raw ones at its last position and `hidden`
    (D,) the state after the final layer norm there; `step` counts the tokens generated so far.
    """
    n = len(tokens)
    recent = list(tokens[-RECENT:])
    observation = torch.zeros(OBSERVATION_DIM, device=hidden.device)
    observation[0] = 1.0 - len(set(tokens)) / n if n else 0.0
    observation[1] = _entropy(logits) / ENTROPY_SCALE
    observation[2] = _distinct_ratio(tokens, 2)
    observation[3] = _distinct_ratio(tokens, 3)
    observation[4] = len(set(recent)) / len(recent) if n else 1.0
    observation[5] = max(Counter(recent).values()) / len(recent) if n else 0.0
    observation[6] = min(n / LENGTH_SCALE, 1.0)
    observation[10:58] = _chunk_statistics(hidden[None])[0]
    observation[58] = step / max(episode_length, 1)
    observation[59] = 1.0
    observation[60] = previous_action
    return observation


def build_observations(
    history: TokenHistory,
    logits: Tensor,
    hidden: Tensor,
    *,
    step: Tensor,
    episode_length: int | Tensor,
    previous_action: Tensor,
) -> Tensor:
    """`build_observation` for B sequences at once -> (B, 64) float32, on the device, without a host sync.

    logits (B, V), hidden (B, D), step (B,), previous_action (B,) or (B, 1); `episode_length` one number or (B,).
    """
    B, device = logits.shape[0], hidden.device
    entropy = _entropy(logits)
    n = history.length
    length = torch.as_tensor(episode_length, device=device).clamp(min=1)
    window = history.recent(RECENT)
    present = window != ABSENT
    alike = window[:, :, None] == window[:, None, :]
    place = torch.arange(RECENT, device=device)
    repeats_earlier = (alike & (place < place[:, None])).any(2)  # torch.tril takes 60 µs for this
    recent_count = n.clamp(1, RECENT)
    unique = ((present > repeats_earlier).sum(1) / recent_count).masked_fill_(n < 1, 1.0)
    most_common = alike.sum(2).mul_(present).amax(1) / recent_count

    # Different n-grams per n-gram, 1 where there is none: of one, two and three tokens.
    ngrams = n[:, None] - torch.arange(3, device=device)
    distinct = torch.stack((history.unique, history.bigrams, history.trigrams), dim=1)
    ratios = (distinct / ngrams.clamp(min=1)).masked_fill_(ngrams < 1, 1.0)

    # Of every sequence so few numbers that what counts is the number of operations.
    numbers = (unique, most_common, (n / LENGTH_SCALE).clamp(max=1.0))
    episode = (step / length, torch.ones_like(unique), previous_action.reshape(B))
    none = hidden.new_zeros((B, 3), dtype=torch.float32)
    repetition, entropies = 1.0 - ratios[:, :1], (entropy / ENTROPY_SCALE)[:, None]
    parts = (repetition, entropies, ratios[:, 1:], torch.stack(numbers, dim=1), none)
    return torch.cat((*parts, _chunk_statistics(hidden), torch.stack(episode, dim=1).float(), none), dim=1)


def _entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) over the last dimension; impossible tokens (−inf) count 0."""
    logits = logits.float()
    largest = logits.amax(-1, keepdim=True)
    # `exponentials`, in one operation less: here a last bit of the largest does not matter.
    weights = torch.add(largest * -LOG2_E, logits, alpha=LOG2_E).exp2_()
    mass = weights.sum(-1)
    # ln Z − Σ p·x. What is impossible is 0 · −∞, no number, and left out of the sum.
    entropy: Tensor = largest[..., 0] + mass.log() - weights.mul_(logits).nansum(-1) / mass
    return entropy


def _distinct_ratio(tokens: Sequence[int], n: int) -> float:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _chunk_statistics(hidden: Tensor) -> Tensor:
    """hidden (B, D) -> (B, 48): 24 chunk means, then 24 unbiased deviations (0 for chunks of one value)."""
    B, D = hidden.shape
    size = D // CHUNKS
    if size == 0:
        return hidden.new_zeros((B, 2 * CHUNKS), dtype=torch.float32)
    chunks = hidden[:, : CHUNKS * size].float().reshape(B, CHUNKS, size)
    if size == 1:
        return torch.cat([chunks[:, :, 0], torch.zeros_like(chunks[:, :, 0])], dim=1)
    mean = chunks.mean(2)
    # torch.std takes three times as long for rows of ten.
    deviation = (chunks - mean[:, :, None]).square().sum(2).div(size - 1).sqrt()
    return torch.cat([mean, deviation], dim=1)
