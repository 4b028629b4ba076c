"""What is added to the raw logits of single rows: logit bias, presence and frequency penalty, as OpenAI defines them.

    logits[t] += bias[t] − presence · (count[t] > 0) − frequency · count[t]

Counts are of the tokens that the row has drawn, not of its prompt. This comes before the repetition penalty and the
temperature. Only rows that ask for it take part: a batch without them does nothing here. Shapes: k such rows of n rows,
V vocabulary. Leaves out: the repetition penalty (`batch`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.generation.settings import GenerationSettings


class Offsets:
    """The sums of the rows that have any; row numbers are those of the batch."""

    def __init__(self, vocab_size: int, *, device: torch.device | str = "cpu") -> None:
        self._rows: list[int] = []
        self._sums = torch.zeros(0, vocab_size, device=device)
        self._drawn = torch.zeros(0, vocab_size, dtype=torch.bool, device=device)
        self._penalties = torch.zeros(0, 2, device=device)
        self._settled()

    def join(self, row: int, settings: GenerationSettings) -> None:
        """A row of the batch, which may want nothing."""
        if not (settings.presence_penalty or settings.frequency_penalty or settings.logit_bias):
            return
        k = len(self._rows)
        if k == len(self._sums):
            self._sums, self._drawn, self._penalties = (
                torch.cat((held, held.new_zeros(max(1, k), held.shape[1])))
                for held in (self._sums, self._drawn, self._penalties)
            )
        self._sums[k] = 0.0
        self._drawn[k] = False
        if settings.logit_bias:
            ids, values = zip(*settings.logit_bias, strict=True)
            device = self._sums.device
            self._sums[k, torch.tensor(ids, device=device)] = torch.tensor(values, device=device)
        self._penalties[k, 0], self._penalties[k, 1] = settings.presence_penalty, settings.frequency_penalty
        self._rows.append(row)
        self._settled()

    def remove(self, row: int, last: int) -> None:
        """Row `row` of the batch leaves, row `last` takes its place."""
        if not self._rows:
            return
        if row in self._rows:
            place, end = self._rows.index(row), len(self._rows) - 1
            for held in (self._sums, self._drawn, self._penalties):
                held[place] = held[end]
            self._rows[place] = self._rows[end]
            self._rows.pop()
        self._rows = [row if its == last else its for its in self._rows]
        self._settled()

    def apply(self, logits: Tensor) -> None:
        """Add to logits (n, V) in place."""
        if self._rows:
            logits.index_add_(0, self._index, self._sums[: len(self._rows)])

    def append(self, tokens: Tensor) -> None:
        """The rows have drawn tokens (n,)."""
        if not self._rows:
            return
        token, k = tokens[self._index], len(self._rows)
        presence, frequency = self._penalties[:k].unbind(1)
        again = self._drawn[self._places, token]
        self._sums[self._places, token] -= frequency + torch.where(again, 0.0, presence)
        self._drawn[self._places, token] = True

    def _settled(self) -> None:
        device = self._sums.device
        self._index = torch.tensor(self._rows, dtype=torch.int64, device=device)
        self._places = torch.arange(len(self._rows), device=device)
