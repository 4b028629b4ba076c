"""The 64 numbers that a policy observes before it picks the modulation of the next token.

`build_observation` computes them for one sequence from all its tokens. `build_observations` computes the same for B
sequences from the running counts of a `TokenHistory`, without a host sync. Training, ablation and serving all use these
functions. The entries are:

0       1 − (distinct tokens / all tokens)
1       entropy of the softmax of the raw logits in nats, divided by 10
2, 3    distinct bigrams / all bigrams, and distinct trigrams / all trigrams
4, 5    of the last ten tokens: the share of distinct ones, and the share of the most common one
6       number of tokens divided by 100, at most 1
10–33   means of 24 chunks of the hidden state
34–57   standard deviations of the same chunks
58      number of generated tokens divided by the episode length
59      constant 1
60      previous action, that is, the previous modulation
other   0
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
"""Number of chunks into which the hidden state is split. Its last d_model mod 24 values are not used."""
RECENT = 10
"""Number of last tokens from which entries 4 and 5 of the observation are computed."""
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
    """Return the observation (64,) float32 of one sequence.

    `tokens` is the whole sequence with the prompt. `logits` (V,) are the raw logits at its last position, and `hidden`
    (D,) is the state after the final layer norm at that position. `step` is the number of tokens generated so far.
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
    """Return the observations (B, 64) float32 of B sequences, computed on the device without a host sync.

    logits (B, V), hidden (B, D), step (B,), previous_action (B,) or (B, 1); `episode_length` is a number or (B,).
    """
    B, device = logits.shape[0], hidden.device
    entropy = _entropy(logits)
    n = history.length
    length = episode_length.clamp(min=1) if isinstance(episode_length, Tensor) else max(episode_length, 1)
    window = history.recent(RECENT)
    present = window != ABSENT
    alike = window[:, :, None] == window[:, None, :]
    position = torch.arange(RECENT, device=device)
    repeats_earlier = (alike & (position < position[:, None])).any(2)  # torch.tril is slower (60 µs)
    recent_count = n.clamp(1, RECENT)
    unique = ((present > repeats_earlier).sum(1) / recent_count).masked_fill_(n < 1, 1.0)
    most_common = alike.sum(2).mul_(present).amax(1) / recent_count

    # Distinct n-grams divided by all n-grams, for n = 1, 2, 3; the ratio is 1 where there is no n-gram.
    ngrams = n[:, None] - torch.arange(3, device=device)
    distinct = torch.stack((history.unique, history.bigrams, history.trigrams), dim=1)
    ratios = (distinct / ngrams.clamp(min=1)).masked_fill_(ngrams < 1, 1.0)

    # The tensors are small, so the number of operations determines the time; stacking the values saves operations.
    numbers = (unique, most_common, (n / LENGTH_SCALE).clamp(max=1.0))
    episode = (step / length, torch.ones_like(unique), previous_action.reshape(B))
    none = hidden.new_zeros((B, 3), dtype=torch.float32)
    repetition, entropies = 1.0 - ratios[:, :1], (entropy / ENTROPY_SCALE)[:, None]
    parts = (repetition, entropies, ratios[:, 1:], torch.stack(numbers, dim=1), none)
    return torch.cat((*parts, _chunk_statistics(hidden), torch.stack(episode, dim=1).float(), none), dim=1)


def _entropy(logits: Tensor) -> Tensor:
    """Return the entropy in nats of softmax(logits) over the last dimension; impossible tokens (−inf) add 0."""
    logits = logits.float()
    largest = logits.amax(-1, keepdim=True)
    # Like `exponentials`, but one operation fewer. The exponential of the largest logit may differ slightly from 1; the
    # entropy tolerates this.
    weights = torch.add(largest * -LOG2_E, logits, alpha=LOG2_E).exp2_()
    mass = weights.sum(-1)
    # ln Z − Σ p·x. For impossible tokens 0 · −∞ is NaN, which `nansum` ignores.
    entropy: Tensor = largest[..., 0] + mass.log() - weights.mul_(logits).nansum(-1) / mass
    return entropy


def _distinct_ratio(tokens: Sequence[int], n: int) -> float:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _chunk_statistics(hidden: Tensor) -> Tensor:
    """Return 24 chunk means, then 24 unbiased standard deviations (0 for one-value chunks): (B, D) -> (B, 48)."""
    B, D = hidden.shape
    size = D // CHUNKS
    if size == 0:
        return hidden.new_zeros((B, 2 * CHUNKS), dtype=torch.float32)
    chunks = hidden[:, : CHUNKS * size].float().reshape(B, CHUNKS, size)
    if size == 1:
        return torch.cat([chunks[:, :, 0], torch.zeros_like(chunks[:, :, 0])], dim=1)
    mean = chunks.mean(2)
    # torch.std takes three times as long for chunks of ten values.
    deviation = (chunks - mean[:, :, None]).square().sum(2).div(size - 1).sqrt()
    return torch.cat([mean, deviation], dim=1)
