"""Logit bias, presence penalty and frequency penalty as OpenAI's API defines them, added to the raw logits.

    logits[t] += bias[t] − presence · (count[t] > 0) − frequency · count[t]

The counts include only generated tokens, not the prompt. The adjustments are applied before the repetition penalty and
the temperature. Only slots whose settings have adjustments take memory and time. Shapes: n slots, k of them with
adjustments, V vocabulary. The repetition penalty is in `batch`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.generation.settings import GenerationSettings


class LogitAdjustments:
    """The adjustments of all slots that have adjustments. Slot numbers are those of the batch."""

    def __init__(self, vocab_size: int, *, device: torch.device | str = "cpu") -> None:
        self._slots: list[int] = []
        self._adjustments = torch.zeros(0, vocab_size, device=device)
        self._generated = torch.zeros(0, vocab_size, dtype=torch.bool, device=device)
        self._penalties = torch.zeros(0, 2, device=device)
        self._update_indices()

    def join(self, slot: int, settings: GenerationSettings) -> None:
        """Add the slot if its settings have adjustments."""
        if not (settings.presence_penalty or settings.frequency_penalty or settings.logit_bias):
            return
        k = len(self._slots)
        if k == len(self._adjustments):
            self._adjustments, self._generated, self._penalties = (
                torch.cat((tensor, tensor.new_zeros(max(1, k), tensor.shape[1])))
                for tensor in (self._adjustments, self._generated, self._penalties)
            )
        self._adjustments[k] = 0.0
        self._generated[k] = False
        if settings.logit_bias:
            ids, values = zip(*settings.logit_bias, strict=True)
            device = self._adjustments.device
            self._adjustments[k, torch.tensor(ids, device=device)] = torch.tensor(values, device=device)
        self._penalties[k, 0], self._penalties[k, 1] = settings.presence_penalty, settings.frequency_penalty
        self._slots.append(slot)
        self._update_indices()

    def remove(self, slot: int, last: int) -> None:
        """Remove the adjustments of `slot`. The sequence of slot `last` moves to `slot`, and so do its adjustments."""
        if not self._slots:
            return
        if slot in self._slots:
            index, end = self._slots.index(slot), len(self._slots) - 1
            for tensor in (self._adjustments, self._generated, self._penalties):
                tensor[index] = tensor[end]
            self._slots[index] = self._slots[end]
            self._slots.pop()
        self._slots = [slot if other == last else other for other in self._slots]
        self._update_indices()

    def apply(self, logits: Tensor) -> None:
        """Add the adjustments to logits (n, V) in place."""
        if self._slots:
            logits.index_add_(0, self._slot_index, self._adjustments[: len(self._slots)])

    def append(self, tokens: Tensor) -> None:
        """Update the adjustments after tokens (n,) were sampled."""
        if not self._slots:
            return
        token, k = tokens[self._slot_index], len(self._slots)
        presence, frequency = self._penalties[:k].unbind(1)
        repeated = self._generated[self._indices, token]
        self._adjustments[self._indices, token] -= frequency + torch.where(repeated, 0.0, presence)
        self._generated[self._indices, token] = True

    def _update_indices(self) -> None:
        device = self._adjustments.device
        self._slot_index = torch.tensor(self._slots, dtype=torch.int64, device=device)
        self._indices = torch.arange(len(self._slots), device=device)
