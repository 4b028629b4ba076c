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

from common.generation.decoding_model import DecodingModel
from common.generation.prompt_scores import PromptScore, score_prompt
from common.generation.slot_cache import SlotCache

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
    def cache(self) -> SlotCache:
        """Keys and values of the rows, in order."""
        return self._cache

    @property
    def nbytes(self) -> int:
        """Memory of the cache."""
        return self._cache.nbytes

    def join(
        self, prompts: Sequence[Sequence[int]], alternatives: Sequence[int | None] | None = None
    ) -> list[list[PromptScore] | None]:
        """Prompts of at least one token each become the next rows, prefilled without modulation; equal ones once.

        Returns the scores of the tokens of those prompts that `alternatives` has a number for: so many likeliest tokens
        are told with each. Tokens outside the window have none.
        """
        self._cache.reserve(len(self) + len(prompts))
        for prompt in prompts:
            self._tokens.append(list(prompt[-(self._context - 1) :]))
            self.truncated.append(len(prompt) - len(self._tokens[-1]))
        base = len(self) - len(prompts)
        wanted = [None] * len(prompts) if alternatives is None else alternatives
        places: dict[tuple[int, ...], int] = {}
        sources = [places.setdefault(tuple(tokens), len(places)) for tokens in self._tokens[base:]]
        to_score: list[int | None] = [None] * len(places)
        for source, count in zip(sources, wanted, strict=True):
            if count is not None:
                to_score[source] = max(count, to_score[source] or 0)
        # Rows in use have been decoded since any left; an empty batch has none to keep.
        before = self.logits[:base], self.hidden[:base]
        (logits, hidden), scores = self._fill(base, list(places), to_score)
        if len(places) < len(prompts):
            logits, hidden = logits[sources], hidden[sources]
            lengths = [len(tokens) for tokens in self._tokens[base:]]
            self._cache.spread(base, [base + source for source in sources], max(lengths))
            self._cache.set_lengths(base, lengths)
        self.logits, self.hidden = torch.cat((before[0], logits)), torch.cat((before[1], hidden))
        outside = 1 - self._context
        return [
            None
            if count is None
            else [PromptScore(token, None, []) for token in prompt[:outside]] + (scores[source] or [])
            for source, count, prompt in zip(sources, wanted, prompts, strict=True)
        ]

    def append(self, tokens: Tensor, on_host: Sequence[int], scales: Tensor | None) -> None:
        """Decode one token per row, tokens (n,) int64 and the same on the host, with gates at `scales`."""
        for row, token in enumerate(on_host):
            if len(self._tokens[row]) == self._context:
                half = self._context // 2
                self.truncated[row] += half
                self._tokens[row] = self._tokens[row][half:]
                self._prefill(row, self._tokens[row : row + 1])
            self._tokens[row].append(token)
        self.logits, self.hidden = self.model.decode(tokens, self._cache, scales)

    def remove(self, row: int, *, clear: bool = False) -> None:
        """The row leaves, the last one takes its place. Logits and hidden states do not move: decode next.

        `clear` a row whose logits are not finite.
        """
        self._cache.remove(row, clear=clear)
        self._tokens[row] = self._tokens[-1]
        self.truncated[row] = self.truncated[-1]
        self._tokens.pop()
        self.truncated.pop()

    def _fill(
        self, first: int, prompts: Sequence[Sequence[int]], to_score: Sequence[int | None]
    ) -> tuple[tuple[Tensor, Tensor], list[list[PromptScore] | None]]:
        """Prefill rows from `first` on, as many at once as `PREFILL_TOKENS` allows."""
        parts: list[tuple[Tensor, Tensor]] = []
        scores: list[list[PromptScore] | None] = []
        done = 0
        while done < len(prompts):
            longest, count = 0, 0
            for tokens in prompts[done:]:
                longest = max(longest, len(tokens))
                if count and longest * (count + 1) > PREFILL_TOKENS:
                    break
                count += 1
            part = slice(done, done + count)
            if all(alternatives is None for alternatives in to_score[part]):
                parts.append(self._prefill(first + done, prompts[part]))
                scores += [None] * count
            else:
                parts.append(self._score(first + done, prompts[part], to_score[part], scores))
            done += count
        logits, hidden = (torch.cat(column) for column in zip(*parts, strict=True))
        return (logits, hidden), scores

    def _prefill(self, first: int, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, lengths = _padded(prompts)
        return self.model.prefill(ids.to(self.model.device), lengths, self._cache, first)

    def _score(
        self,
        first: int,
        prompts: Sequence[Sequence[int]],
        to_score: Sequence[int | None],
        scores: list[list[PromptScore] | None],
    ) -> tuple[Tensor, Tensor]:
        """`_prefill` that adds to `scores`."""
        ids, lengths = _padded(prompts)
        states = self.model.fill(ids.to(self.model.device), lengths, self._cache, first)
        for its, tokens, alternatives in zip(states, prompts, to_score, strict=True):
            scored = None if alternatives is None else score_prompt(self.model.project, its, tokens, alternatives)
            scores.append(scored)
        return self.model.read(states, lengths)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
    """Prompts (n, T) with their last tokens repeated: no row reads a token that is not its own; and their lengths."""
    lengths = [len(prompt) for prompt in prompts]
    T = max(lengths)
    return torch.tensor([[*prompt, *[prompt[-1]] * (T - len(prompt))] for prompt in prompts]), lengths
