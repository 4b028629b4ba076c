"""The tokens of B growing sequences, and counts of distinct tokens and n-grams, in tensors on the device.

`append` updates the counts and the mask of seen tokens incrementally and without a host sync. Observation, repetition
penalty and repetition reward use the counts and the mask. A sequence consists of the prompt and all generated tokens,
including those that are no longer in the model's context window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.model.transfer import to_device

ABSENT = -1
"""Token id that marks a position before the start or after the end of a sequence."""


class TokenHistory:
    """B sequences of up to `capacity` tokens each.

    `tokens` (B, capacity) int64 has ABSENT after the end of a sequence. `length`, and the numbers of distinct tokens,
    bigrams and trigrams (`unique`, `bigrams`, `trigrams`), are (B,) int64. `seen` (B, V) bool is true for tokens that
    occur in the sequence. An append beyond `capacity` raises IndexError (on CUDA, a device-side assert fails).
    """

    def __init__(self, batch_size: int, capacity: int, vocab_size: int, *, device: torch.device | str = "cpu") -> None:
        self.vocab_size = vocab_size
        self.capacity = capacity
        self.tokens = torch.full((batch_size, capacity), ABSENT, dtype=torch.long, device=device)
        self.seen = torch.zeros((batch_size, vocab_size), dtype=torch.bool, device=device)
        counts = torch.zeros((4, batch_size), dtype=torch.long, device=device)
        self.length, self.unique, self.bigrams, self.trigrams = counts.unbind(0)
        self._rows = torch.arange(batch_size, device=device)

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[int]],
        *,
        vocab_size: int,
        extra_capacity: int = 0,
        device: torch.device | str = "cpu",
    ) -> TokenHistory:
        """Return a history of `sequences`. Its capacity is the length of the longest one plus `extra_capacity`."""
        prompts, lengths = pad(sequences, device=device)
        history = cls(len(sequences), prompts.shape[1] + extra_capacity, vocab_size, device=device)
        history.reset(prompts, lengths)
        return history

    def reset(self, prompts: Tensor, lengths: Tensor, rows: Tensor | None = None) -> None:
        """Replace all sequences by `prompts` (B, P), which have `lengths` (B,) and are padded on the right.

        With `rows` (B,) bool, replace only the sequences for which it is true.
        """
        B, P = prompts.shape
        if self.capacity < P:
            raise ValueError(
                f"prompts of {P} tokens exceed the capacity of the token history, {self.capacity}; create a larger one"
            )
        positions = torch.arange(P, device=prompts.device)
        prompts = torch.where(positions < lengths[:, None], prompts, ABSENT)
        tokens = torch.full_like(self.tokens, ABSENT)
        tokens[:, :P] = prompts
        # Padding sets an extra last column of `seen`, which is dropped afterwards.
        seen = torch.zeros((B, self.vocab_size + 1), dtype=torch.bool, device=prompts.device)
        seen.scatter_(1, torch.where(prompts == ABSENT, self.vocab_size, prompts), True)
        seen = seen[:, : self.vocab_size]
        keep = torch.zeros_like(lengths, dtype=torch.bool) if rows is None else ~rows
        self.tokens = torch.where(keep[:, None], self.tokens, tokens)
        self.seen = torch.where(keep[:, None], self.seen, seen)
        self.length = torch.where(keep, self.length, lengths)
        self.unique = torch.where(keep, self.unique, seen.sum(1))
        self.bigrams = torch.where(keep, self.bigrams, _distinct_ngrams(prompts, 2, self.vocab_size))
        self.trigrams = torch.where(keep, self.trigrams, _distinct_ngrams(prompts, 3, self.vocab_size))

    def append(self, token: Tensor, active: Tensor | None = None) -> None:
        """Append one token per sequence (B,). With `active` (B,) bool, append only where it is true."""
        two_back, one_back = self.recent(2).unbind(1)
        ends = self.tokens == token[:, None]
        pairs = ends[:, 1:] & (self.tokens[:, :-1] == one_back[:, None])
        triples = pairs[:, 1:] & (self.tokens[:, :-2] == two_back[:, None])
        # Update in place, because the histories that `prefix` returns share these tensors.
        new_token = ~self.seen[self._rows, token]
        new_pair = (self.length >= 1) & ~pairs.any(1)
        new_triple = (self.length >= 2) & ~triples.any(1)
        if active is None:
            self.tokens[self._rows, self.length] = token
            self.seen.scatter_(1, token[:, None], True)  # an assignment of True would wait for the device
            self.length += 1
        else:
            new_token, new_pair, new_triple = new_token & active, new_pair & active, new_triple & active
            position = torch.where(active, self.length, 0)
            self.tokens[self._rows, position] = torch.where(active, token, self.tokens[:, 0])
            self.seen[self._rows, token] |= active
            self.length += active
        self.unique += new_token
        self.bigrams += new_pair
        self.trigrams += new_triple

    def prefix(self, rows: int, span: int) -> TokenHistory:
        """Return the first `rows` sequences as a history that shares their memory.

        The result has capacity `span`. Nothing may be appended to a sequence that is longer than `span`.
        """
        return self._view(slice(0, rows), span)

    def single(self, row: int, span: int) -> TokenHistory:
        """Return the sequence `row` as a history that shares its memory and has capacity `span`."""
        return self._view(slice(row, row + 1), span)

    def _view(self, rows: slice, span: int) -> TokenHistory:
        view = object.__new__(TokenHistory)
        view.vocab_size, view.capacity = self.vocab_size, span
        view.tokens, view.seen = self.tokens[rows, :span], self.seen[rows]
        view._rows = self._rows[: len(view.seen)]
        view.length, view.unique = self.length[rows], self.unique[rows]
        view.bigrams, view.trigrams = self.bigrams[rows], self.trigrams[rows]
        return view

    def set_sequence(self, row: int, tokens: Sequence[int], *, counted: bool = True) -> None:
        """Replace the sequence `row` by `tokens`. If not `counted`, its row of `seen` and its counts become invalid."""
        if not counted:
            self.tokens[row] = ABSENT
            self.tokens[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long, device=self.tokens.device)
            self.length[row] = len(tokens)
            return
        source = TokenHistory.of([tokens], vocab_size=self.vocab_size, device=self.tokens.device)
        self.tokens[row] = ABSENT
        self.tokens[row, : source.capacity] = source.tokens[0]
        for target_counter, source_counter in zip(self._counters, source._counters, strict=True):
            target_counter[row] = source_counter[0]

    def copy(self, source: int, target: int) -> None:
        """Replace the sequence `target` by a copy of the sequence `source`."""
        for tensor in (self.tokens, *self._counters):
            tensor[target] = tensor[source]

    def grow(self, rows: int, capacity: int) -> TokenHistory:
        """Return a larger history, with `rows` sequences and `capacity`, that starts with copies of all sequences."""
        grown = TokenHistory(rows, capacity, self.vocab_size, device=self.tokens.device)
        existing = len(self.tokens)
        grown.tokens[:existing, : self.capacity] = self.tokens
        for target_counter, source_counter in zip(grown._counters, self._counters, strict=True):
            target_counter[:existing] = source_counter
        return grown

    def append_uncounted(self, token: Tensor) -> None:
        """Append one token per sequence (B,) without updating `seen` and the counts, which are invalid afterwards."""
        self.tokens[self._rows, self.length] = token
        self.length += 1

    @property
    def _counters(self) -> tuple[Tensor, ...]:
        return self.seen, self.length, self.unique, self.bigrams, self.trigrams

    def recent(self, count: int) -> Tensor:
        """Return the last `count` tokens of each sequence (B, count), oldest first; shorter ones start with ABSENT."""
        positions = self.length[:, None] + torch.arange(-count, 0, device=self.length.device)
        found = self.tokens.gather(1, positions.clamp(min=0, max=max(self.capacity - 1, 0)))
        return found.masked_fill_(positions < 0, ABSENT)


def pad(sequences: Sequence[Sequence[int]], *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return token lists as an int64 tensor (B, longest length), padded on the right with 0, and lengths (B,).

    The tensor has at least one column.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    padded = torch.tensor([[*s, *[0] * (max(longest, 1) - len(s))] for s in sequences], dtype=torch.long)
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.long)
    return to_device(padded, torch.device(device)), to_device(lengths, torch.device(device))


def _distinct_ngrams(tokens: Tensor, n: int, vocab_size: int) -> Tensor:
    """Return the number of distinct n-grams (B,) in each row of `tokens` (B, P), which ends with ABSENT padding."""
    if tokens.shape[1] < n:
        return torch.zeros(tokens.shape[0], dtype=torch.long, device=tokens.device)
    windows = tokens.unfold(1, n, 1)
    # Encode an n-gram as an integer in base V. For V = 50,257, V^3 is 1.3e14, far below 2^63.
    codes = windows[..., 0]
    for position in range(1, n):
        codes = codes * vocab_size + windows[..., position]
    codes = codes.masked_fill((windows == ABSENT).any(-1), ABSENT)
    ordered = codes.sort(dim=1).values
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (first & (ordered != ABSENT)).sum(1)
