"""Computes the expected reward of 21 modulations for the same contexts, in one pass over held-out text.

A context is the beginning of a document. At its last position the model predicts the next token. For each modulation,
the reward is averaged over the distribution from which the token would be sampled, so the table contains no sampling
noise. The text is not generated: later tokens do not depend on m, and the gates receive none. `common.rl.headroom`
evaluates policies with the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.config import RLConfig
from common.controller import TokenHistory, build_observations, decoding_parameter_rows
from common.controller.observation import ENTROPY_SCALE
from common.generation.sampling.sample import filter_candidates, sampling_entropy, score_sequences
from common.model import TransformerLM
from common.rl.ablation import CONSTANTS
from common.rl.rewards import WINDOW, reward_components, reward_weights
from common.rl.statistics import NgramStatistics

CONTEXTS_AT_ONCE = 8
"""Number of contexts whose rewards are computed together. Each has a distribution over the vocabulary for each m."""


@dataclass(frozen=True)
class RewardTable:
    """The rewards of C contexts for the 21 modulations `CONSTANTS`, and what a policy can see in each context."""

    reward: NDArray[np.float64]
    """Shape (C, 21)."""
    components: NDArray[np.float64]
    """Shape (C, 21, 5), before weighting."""
    observation: NDArray[np.float32]
    """Shape (C, 64)."""
    entropy: NDArray[np.float64]
    """Entropy in nats of the model's next-token distribution, (C,)."""
    repeats: NDArray[np.bool_]
    """Whether the most likely token already occurs in the context, (C,)."""
    document: NDArray[np.int64]
    """Number of the document to which the context belongs, (C,)."""

    def rows(self, chosen: NDArray[np.bool_]) -> RewardTable:
        """Return the contexts for which `chosen` (C,) is true."""
        return replace(self, **{name: values[chosen] for name, values in vars(self).items()})


@torch.no_grad()
def reward_table(
    model: TransformerLM,
    documents: Sequence[Sequence[int]],
    positions: Sequence[int],
    config: RLConfig,
    statistics: NgramStatistics | None,
    *,
    on_contexts: Callable[[int], None] = lambda _: None,
) -> RewardTable:
    """Return the table for the contexts `document[:p]` of every document and p in `positions`.

    All documents are longer than the largest position. `on_contexts(number of finished contexts)` is called after each
    group of contexts and may raise to abort.
    """
    model.eval()
    statistics = None if statistics is None else statistics.to(model.device)
    parts: list[list[Tensor]] = []
    documents_of: list[int] = []
    for number, document in enumerate(documents):
        tokens = torch.tensor(document, device=model.device)
        states = model.hidden_states(tokens[None, : max(positions)])[0]
        for start in range(0, len(positions), CONTEXTS_AT_ONCE):
            group = positions[start : start + CONTEXTS_AT_ONCE]
            hidden = states[torch.tensor(group, device=model.device) - 1].float()
            contexts = [list(document[:p]) for p in group]
            parts.append(_rows(contexts, model.project(hidden).float(), hidden, config, statistics))
            documents_of += [number] * len(group)
            on_contexts(len(documents_of))
    components, observation, repeats = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    components = components.astype(np.float64)
    return RewardTable(
        reward=components @ np.array(reward_weights(config.reward)),
        components=components,
        observation=observation,
        entropy=observation[:, 1].astype(np.float64) * ENTROPY_SCALE,
        repeats=repeats,
        document=np.array(documents_of, dtype=np.int64),
    )


def _rows(
    contexts: Sequence[Sequence[int]],
    logits: Tensor,
    hidden: Tensor,
    config: RLConfig,
    statistics: NgramStatistics | None,
) -> list[Tensor]:
    """Return expected components (n, 21, 5), observations (n, 64) and repeats (n,) of n contexts.

    `logits` (n, V) and `hidden` (n, D) belong to the last tokens of the contexts.
    """
    history = TokenHistory.of(contexts, vocab_size=logits.shape[1], device=logits.device)
    observation = build_observations(
        history,
        logits,
        hidden,
        step=(history.length - config.episode.prompt_max_tokens).clamp_min(0),
        episode_length=config.episode.max_length,
        previous_action=torch.zeros(len(contexts), device=logits.device),
    )
    repeats = history.seen.gather(1, logits.argmax(1, keepdim=True))[:, 0]
    modulation = torch.tensor(CONSTANTS, device=logits.device).repeat(len(contexts))
    times = len(CONSTANTS)
    components = expected_components(
        logits.repeat_interleave(times, 0),
        history.tokens.repeat_interleave(times, 0),
        history.recent(WINDOW).repeat_interleave(times, 0),
        modulation,
        config,
        statistics,
    )
    return [components.view(len(contexts), times, -1), observation, repeats]


def expected_components(
    logits: Tensor,
    tokens: Tensor,
    recent: Tensor,
    modulation: Tensor,
    config: RLConfig,
    statistics: NgramStatistics | None,
) -> Tensor:
    """Return the reward components (B, 5), averaged over the token that is sampled with `modulation` (B,).

    logits (B, V) are raw, `tokens` (B, S) are the sequences, padded with −1, and `recent` (B, 10) their last tokens.
    """
    parameters = decoding_parameter_rows(modulation, config.modulation)
    scores = score_sequences(logits, tokens, parameters)
    most = max(round(config.modulation.top_k.high), 1)
    candidates = filter_candidates(scores, parameters, max_candidates=most)
    B, N = candidates.ids.shape
    log_prob = scores.logits.gather(1, candidates.ids) - scores.log_mass[:, None]
    components = reward_components(
        log_prob.flatten(),
        scores.entropy.repeat_interleave(N),
        sampling_entropy(candidates).repeat_interleave(N),
        candidates.ids.flatten(),
        recent.repeat_interleave(N, 0),
        statistics,
        config.reward,
    )
    return (candidates.probabilities[..., None] * components.view(B, N, -1)).sum(1)
