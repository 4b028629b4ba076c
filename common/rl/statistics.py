"""Unigram and bigram counts of a corpus, for the coherence reward.

Counts live on one device as a dense unigram vector and a sorted list of bigram keys (prev · V + token), so that a batch
of pairs is scored by one binary search without a host sync. Leaves out: longer n-grams and any smoothing but add-one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class NgramStatistics:
    """Counts over sequences of token ids below `vocab_size` (V); pairs never cross two sequences."""

    def __init__(self, unigrams: Tensor, bigram_keys: Tensor, bigram_counts: Tensor) -> None:
        """`unigrams` (V,) int64; `bigram_keys` (n,) int64 sorted and unique; `bigram_counts` (n,) int64."""
        self.vocab_size = int(unigrams.shape[0])
        self.unigrams = unigrams
        self.bigram_keys = bigram_keys
        self.bigram_counts = bigram_counts
        self.total = int(unigrams.sum())
        """N, positions counted."""
        self.bigram_total = int(bigram_counts.sum())

    @classmethod
    def from_sequences(
        cls, sequences: Iterable[Sequence[int] | NDArray[np.integer[Any]]], vocab_size: int
    ) -> NgramStatistics:
        """Count `sequences`. Raises ValueError for an id outside [0, vocab_size)."""
        parts = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        nothing = np.zeros(0, dtype=np.int64)
        ids = np.concatenate([nothing, *parts])
        if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
            raise ValueError(f"token ids {ids.min()} to {ids.max()} do not fit a vocabulary of {vocab_size}")
        keys = np.concatenate([nothing, *(part[:-1] * vocab_size + part[1:] for part in parts)])
        unigrams = np.bincount(ids, minlength=vocab_size).astype(np.int64)
        unique, counts = np.unique(keys, return_counts=True)
        return cls(torch.from_numpy(unigrams), torch.from_numpy(unique), torch.from_numpy(counts.astype(np.int64)))

    def to(self, device: torch.device | str) -> NgramStatistics:
        """The same counts on another device."""
        return NgramStatistics(self.unigrams.to(device), self.bigram_keys.to(device), self.bigram_counts.to(device))

    def bigram_count(self, previous: Tensor, token: Tensor) -> Tensor:
        """c(previous, token) for int64 tensors of one shape."""
        if self.bigram_keys.numel() == 0:
            return torch.zeros_like(token)
        key = previous * self.vocab_size + token
        place = torch.searchsorted(self.bigram_keys, key).clamp_max(self.bigram_keys.numel() - 1)
        return torch.where(self.bigram_keys[place] == key, self.bigram_counts[place], 0)

    def coherence(self, previous: Tensor, token: Tensor) -> Tensor:
        """clip(1 + ln q / ln V, 0, 1) with the add-one estimate q of p(token | previous), in [0, 1].

        q = (c(prev, tok) + 1) / (c(prev) + V), or (c(tok) + 1) / (N + V) when prev was never seen. 0.5 where
        `previous` is negative (no token before it) or when no bigram was counted. Shapes: int64 (...) to float32 (...).
        """
        neutral = torch.full(token.shape, 0.5, device=token.device)
        if self.bigram_total == 0:
            return neutral
        before = previous.clamp_min(0)
        seen = self.unigrams[before]
        numerator = torch.where(seen > 0, self.bigram_count(before, token), self.unigrams[token]) + 1
        denominator = torch.where(seen > 0, seen, self.total) + self.vocab_size
        q = numerator.double() / denominator.double()
        score = (1 + q.log() / math.log(self.vocab_size)).clamp(0, 1).float()
        return torch.where(previous >= 0, score, neutral)
