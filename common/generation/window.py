"""The model's sliding view of the sequences in a running batch.

A window holds at most `context_length` tokens in the cache. A long prompt keeps its last context − 1 tokens; when the
window is full, its oldest half is dropped and the rest prefilled again without modulation, then the new token is
decoded with its own. Rows 0..n−1 are in use; a row that leaves is replaced by the last one. Leaves out: sampling, and
the token counts, which go on over the whole sequence (`TokenHistory`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.controller import pad
from common.generation.decoding_model import DecodingModel

PREFILL_TOKENS = 4096
"""Padded prompt tokens of one forward pass; more prompts at once are filled one part after the other."""


class Window:
    """Cache plus what is needed to fill it again. `logits` (rows, V) and `hidden` (rows, D) are those of the last
    token of each row; `truncated` counts the tokens a row has dropped."""

    def __init__(self, model: DecodingModel) -> None:
        self.model = model
        self._context = model.config.context_length
        self._cache = model.new_cache()
        self._tokens: list[list[int]] = []
        self.truncated: list[int] = []
        self.logits = torch.empty(0, model.config.vocab_size, device=model.device)
        self.hidden = torch.empty(0, model.config.d_model, device=model.device)

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def nbytes(self) -> int:
        """Memory of the cache."""
        return self._cache.nbytes

    def join(self, prompts: Sequence[Sequence[int]]) -> None:
        """Prompts of at least one token each become the next rows, prefilled without modulation."""
        self._cache.reserve(len(self) + len(prompts))
        for prompt in prompts:
            self._tokens.append(list(prompt[-(self._context - 1) :]))
            self.truncated.append(len(prompt) - len(self._tokens[-1]))
        first, end = len(self) - len(prompts), len(self)
        # Rows in use have been decoded since any left; an empty batch has none to keep.
        states = [(self.logits[:first], self.hidden[:first])]
        while first < end:
            longest, count = 0, 0
            for tokens in self._tokens[first:end]:
                longest = max(longest, len(tokens))
                if count and longest * (count + 1) > PREFILL_TOKENS:
                    break
                count += 1
            states.append(self._prefill(first, count))
            first += count
        self.logits, self.hidden = (torch.cat(column) for column in zip(*states, strict=True))

    def append(self, tokens: Tensor, on_host: Sequence[int], scales: Tensor | None) -> None:
        """Decode one token per row, tokens (n,) int64 and the same on the host, with gates at `scales`."""
        for row, token in enumerate(on_host):
            if len(self._tokens[row]) == self._context:
                half = self._context // 2
                self.truncated[row] += half
                self._tokens[row] = self._tokens[row][half:]
                self._prefill(row, 1)
            self._tokens[row].append(token)
        self.logits, self.hidden = self.model.decode(tokens, self._cache, scales)

    def remove(self, row: int) -> None:
        """The row leaves, the last one takes its place. Logits and hidden states do not move: decode next."""
        self._cache.remove(row)
        self._tokens[row] = self._tokens[-1]
        self.truncated[row] = self.truncated[-1]
        self._tokens.pop()
        self.truncated.pop()

    def _prefill(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        ids, lengths = pad(self._tokens[first : first + count])
        return self.model.prefill(ids.to(self.model.device), lengths.tolist(), self._cache, first)
