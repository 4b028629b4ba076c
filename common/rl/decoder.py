"""Decodes B sequences together. A step observes, applies a modulation, samples a token, scores and decodes it.

Training rollouts and the ablation share this step. Only the `top_k.high` largest logits of a sequence are sorted,
because top-k is applied last, so that no other token can be sampled. No operation waits for the device.
`common.rl.environment` ends episodes and chooses prompts. There is no sliding window, because every episode fits into
the model's context.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from common.config import RLConfig
from common.controller import TokenHistory, build_observations, decoding_parameter_rows
from common.errors import ConfigError
from common.generation.sampling.sample import sample_scored, score_sequences
from common.model import TransformerLM
from common.rl.rewards import WINDOW, reward_components
from common.rl.statistics import NgramStatistics


class DecodedStep(NamedTuple):
    """Result of one step: token (B,) int64, reward components (B, 5), and `ended` (B,) bool for end-of-text."""

    token: Tensor
    components: Tensor
    ended: Tensor


class Decoder:
    """The state of B sequences on the model's device: tokens, KV cache, raw logits (B, V), hidden states (B, D)."""

    def __init__(
        self,
        model: TransformerLM,
        config: RLConfig,
        statistics: NgramStatistics | None,
        batch_size: int,
        *,
        end_token: int | None,
    ) -> None:
        """Create empty sequences.

        Raises ConfigError if the longest prompt and episode together exceed the model's context.
        """
        self.model = model.eval()
        self.config = config
        self.batch_size = batch_size
        self.device = model.device
        self.capacity = config.episode.prompt_max_tokens + config.episode.max_length
        context = model.config.context_length
        if self.capacity > context:
            raise ConfigError(
                f"episode.prompt_max_tokens {config.episode.prompt_max_tokens} + episode.max_length "
                f"{config.episode.max_length} exceeds the model's context of {context} tokens; "
                f"use episode.max_length {max(context - config.episode.prompt_max_tokens, 1)} or less"
            )
        self.statistics = None if statistics is None else statistics.to(self.device)
        self.end_token = -1 if end_token is None else end_token
        self.max_top_k = max(round(config.modulation.top_k.high), 1)
        vocabulary = model.config.vocab_size
        self.history = TokenHistory(batch_size, self.capacity, vocabulary, device=self.device)
        self.cache = model.new_cache(batch_size, capacity=self.capacity)
        self.logits = torch.zeros(batch_size, vocabulary, device=self.device)
        self.hidden = torch.zeros(batch_size, model.config.d_model, device=self.device)

    def start(self, prompts: Tensor, lengths: Tensor) -> None:
        """Start new sequences: prefill the right-padded prompts (B, P) int64 of `lengths` (B,) without modulation."""
        self.history.reset(prompts, lengths)
        logits, hidden = self.model.prefill(prompts, self.cache, lengths)
        self.logits, self.hidden = logits.float(), hidden.float()

    def observe(self, step: Tensor, previous_action: Tensor) -> Tensor:
        """Return the observations (B, 64).

        `step` (B,) is the number of generated tokens in the episode, `previous_action` has shape (B,) or (B, 1).
        """
        return build_observations(
            self.history,
            self.logits,
            self.hidden,
            step=step,
            episode_length=self.config.episode.max_length,
            previous_action=previous_action,
        )

    @torch.no_grad()
    def step(self, action: Tensor, uniform: Tensor) -> DecodedStep:
        """Sample, score and decode a token per sequence, with modulation `action` (B, 1) and noise `uniform` (B,)."""
        parameters = decoding_parameter_rows(action, self.config.modulation)
        scores = score_sequences(self.logits, self.history.tokens, parameters)
        sampled = sample_scored(scores, parameters, uniform, max_candidates=self.max_top_k)
        components = reward_components(
            sampled.log_prob,
            sampled.entropy,
            sampled.sampling_entropy,
            sampled.token,
            self.history.recent(WINDOW),
            self.statistics,
            self.config.reward,
        )
        self.history.append(sampled.token)
        # Sequences restart at different times, so the host knows only an upper bound of their lengths, which never
        # exceeds the longest prompt and episode together.
        self.cache.bounds = [min(bound, self.capacity - 1) for bound in self.cache.bounds]
        gate_input = action.reshape(-1, 1) if self.model.gates_trained else None
        logits, hidden = self.model.decode_one_token(sampled.token, self.cache, gate_input)
        self.logits, self.hidden = logits.float(), hidden.float()
        return DecodedStep(sampled.token, components, sampled.token == self.end_token)
