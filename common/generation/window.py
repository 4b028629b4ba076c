"""The model's sliding view of B growing sequences.

The window holds at most `context_length` tokens in a KV cache. A long prompt keeps its last context − 1 tokens; when
the window is full, its oldest half is dropped and the rest prefilled again without modulation, then the new token is
decoded with its own. Leaves out: sampling, and the token counts, which go on over the whole sequence (`TokenHistory`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.controller import pad
from common.model import TransformerLM


class SlidingWindow:
    """KV cache plus what is needed to fill it again. `truncated[i]` counts the tokens row i has dropped."""

    def __init__(self, model: TransformerLM, batch_size: int) -> None:
        self._model = model
        self._context = model.config.context_length
        self._cache = model.new_cache(batch_size)
        self._tokens: list[list[int]] = [[] for _ in range(batch_size)]
        self._ended = [False] * batch_size
        self.truncated = [0] * batch_size

    def begin(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Prefill all rows without modulation -> logits (B, V), hidden (B, D) after the last token of each prompt.

        Every prompt has at least one token.
        """
        kept = [list(prompt[-(self._context - 1) :]) for prompt in prompts]
        self._tokens = kept
        self.truncated = [len(prompt) - len(tail) for prompt, tail in zip(prompts, kept, strict=True)]
        input_ids, lengths = pad(kept)
        return self._model.prefill(input_ids.to(self._model.device), self._cache, lengths)

    def append(self, tokens: Sequence[int], modulation: Tensor | None) -> tuple[Tensor, Tensor]:
        """Decode one token per row with its modulation (B, 1) -> logits (B, V), hidden (B, D)."""
        for row, token in enumerate(tokens):
            if len(self._tokens[row]) == self._context:
                self._slide(row)
            self._tokens[row].append(token)
        ids = torch.tensor(list(tokens), device=self._model.device)
        return self._model.decode_one_token(ids, self._cache, modulation)

    def end(self, row: int) -> None:
        """The row's sequence is over; further tokens of it are placeholders."""
        self._ended[row] = True
        self._tokens[row] = []
        self._cache.reset([row])

    def _slide(self, row: int) -> None:
        if self._ended[row]:
            self._tokens[row] = []
            self._cache.reset([row])
            return
        half = self._context // 2
        self.truncated[row] += half
        self._tokens[row] = self._tokens[row][half:]
        self._model.prefill(torch.tensor([self._tokens[row]], device=self._model.device), self._cache, rows=[row])
