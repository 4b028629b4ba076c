"""Unigram and bigram counts of a corpus, for the coherence reward.

The counts are stored on one device as a dense unigram vector and a sorted list of bigram keys (prev · V + token). One
binary search scores a batch of pairs without waiting for the device.
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
    """Counts over sequences of token ids below `vocab_size` (V). The two tokens of a pair are in the same sequence."""

    def __init__(self, unigrams: Tensor, bigram_keys: Tensor, bigram_counts: Tensor) -> None:
        """`unigrams` (V,) int64; `bigram_keys` (n,) int64 sorted and unique; `bigram_counts` (n,) int64."""
        self.vocab_size = int(unigrams.shape[0])
        self.unigrams = unigrams
        self.bigram_keys = bigram_keys
        self.bigram_counts = bigram_counts
        self.total = int(unigrams.sum())
        """Number of counted tokens, N in the formula of `coherence`."""
        self.bigram_total = int(bigram_counts.sum())

    @classmethod
    def from_sequences(
        cls, sequences: Iterable[Sequence[int] | NDArray[np.integer[Any]]], vocab_size: int
    ) -> NgramStatistics:
        """Count `sequences`. Raises ValueError for an id outside [0, vocab_size)."""
        parts = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        empty = np.zeros(0, dtype=np.int64)
        ids = np.concatenate([empty, *parts])
        if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
            raise ValueError(f"token ids {ids.min()} to {ids.max()} do not fit a vocabulary of {vocab_size}")
        keys = np.concatenate([empty, *(part[:-1] * vocab_size + part[1:] for part in parts)])
        unigrams = np.bincount(ids, minlength=vocab_size).astype(np.int64)
        unique, counts = np.unique(keys, return_counts=True)
        return cls(torch.from_numpy(unigrams), torch.from_numpy(unique), torch.from_numpy(counts.astype(np.int64)))

    def to(self, device: torch.device | str) -> NgramStatistics:
        """Return a copy of the counts on another device."""
        return NgramStatistics(self.unigrams.to(device), self.bigram_keys.to(device), self.bigram_counts.to(device))

    def bigram_count(self, previous: Tensor, token: Tensor) -> Tensor:
        """Return the count c(previous, token) for int64 tensors of the same shape."""
        if self.bigram_keys.numel() == 0:
            return torch.zeros_like(token)
        key = previous * self.vocab_size + token
        position = torch.searchsorted(self.bigram_keys, key).clamp_max(self.bigram_keys.numel() - 1)
        return torch.where(self.bigram_keys[position] == key, self.bigram_counts[position], 0)

    def coherence(self, previous: Tensor, token: Tensor) -> Tensor:
        """Return clip(1 + ln q / ln V, 0, 1), where q is the add-one estimate of p(token | previous).

        q = (c(prev, tok) + 1) / (c(prev) + V), or (c(tok) + 1) / (N + V) if prev was never seen. The result is 0.5
        where `previous` is negative (no preceding token), and everywhere if no bigram was counted. Shapes: int64 (...)
        to float32 (...).
        """
        neutral = torch.full(token.shape, 0.5, device=token.device)
        if self.bigram_total == 0:
            return neutral
        before = previous.clamp_min(0)
        previous_count = self.unigrams[before]
        numerator = torch.where(previous_count > 0, self.bigram_count(before, token), self.unigrams[token]) + 1
        denominator = torch.where(previous_count > 0, previous_count, self.total) + self.vocab_size
        q = numerator.double() / denominator.double()
        score = (1 + q.log() / math.log(self.vocab_size)).clamp(0, 1).float()
        return torch.where(previous >= 0, score, neutral)
