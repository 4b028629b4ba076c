"""The sliding context windows of the sequences in a running batch.

The model reads only the tokens of a sequence that are in its window, at most `context_length` of them. Of a long
prompt, the last `context_length` − 1 tokens are read. When a window is full, its oldest half is dropped, the rest is
prefilled again without modulation, and the new token is decoded with its own modulation. Slots 0..n−1 are in use; when
a sequence is removed, the sequence in the last slot moves to the slot that has become free. Token counts are not
limited to the window: they cover the whole sequence (`TokenHistory`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.generation.decoding_model import DecodingModel
from common.generation.prompt_scores import PromptScore, score_prompt
from common.generation.slot_cache import SlotCache
from common.model.transfer import to_device

PREFILL_TOKENS = 4096
"""Largest number of prompt tokens, with padding, in one forward pass. More prompts are prefilled in several passes."""


class Window:
    """The cache of a running batch and the tokens needed to prefill it again.

    `logits` (n, V) and `hidden` (n, D) belong to the last token of each slot. `truncated` counts the tokens that each
    slot has dropped.
    """

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
        """The keys and values of all slots, in the order of the slots."""
        return self._cache

    @property
    def nbytes(self) -> int:
        """Return the memory of the cache in bytes."""
        return self._cache.nbytes

    def join(
        self, prompts: Sequence[Sequence[int]], alternatives: Sequence[int | None] | None = None
    ) -> list[list[PromptScore] | None]:
        """Add prompts of at least one token each as the next slots, and prefill them without modulation.

        Equal prompts are prefilled only once.

        `alternatives[i]` is the number of most likely tokens to return with the score of each token of prompt i, or
        None for no scores. Returns the scores of each prompt; tokens outside the context window have log-probability
        None.
        """
        self._cache.reserve(len(self) + len(prompts))
        for prompt in prompts:
            self._tokens.append(list(prompt[-(self._context - 1) :]))
            self.truncated.append(len(prompt) - len(self._tokens[-1]))
        base = len(self) - len(prompts)
        counts = [None] * len(prompts) if alternatives is None else alternatives
        index_by_prompt: dict[tuple[int, ...], int] = {}
        sources = [index_by_prompt.setdefault(tuple(tokens), len(index_by_prompt)) for tokens in self._tokens[base:]]
        to_score: list[int | None] = [None] * len(index_by_prompt)
        for source, count in zip(sources, counts, strict=True):
            if count is not None:
                to_score[source] = max(count, to_score[source] or 0)
        # `append` was called after every `remove`, so row i of `logits` and `hidden` belongs to slot i.
        existing = self.logits[:base], self.hidden[:base]
        (logits, hidden), scores = self._prefill_in_parts(base, list(index_by_prompt), to_score)
        if len(index_by_prompt) < len(prompts):
            at = to_device(torch.tensor(sources), self.model.device)
            logits, hidden = logits[at], hidden[at]
            lengths = [len(tokens) for tokens in self._tokens[base:]]
            self._cache.copy_slots(base, [base + source for source in sources], max(lengths))
            self._cache.set_lengths(base, lengths)
        self.logits, self.hidden = torch.cat((existing[0], logits)), torch.cat((existing[1], hidden))
        first_in_window = 1 - self._context
        return [
            None
            if count is None
            else [PromptScore(token, None, []) for token in prompt[:first_in_window]] + (scores[source] or [])
            for source, count, prompt in zip(sources, counts, prompts, strict=True)
        ]

    def append(self, tokens: Tensor, on_host: Sequence[int], scales: Tensor | None) -> None:
        """Decode one token per slot, given as `tokens` (n,) int64 and as the list `on_host` in host memory.

        `scales` are the factors of the gates, if any.
        """
        for slot, token in enumerate(on_host):
            if len(self._tokens[slot]) == self._context:
                half = self._context // 2
                self.truncated[slot] += half
                self._tokens[slot] = self._tokens[slot][half:]
                self._prefill(slot, self._tokens[slot : slot + 1])
            self._tokens[slot].append(token)
        self.logits, self.hidden = self.model.decode(tokens, self._cache, scales)

    def remove(self, slot: int, *, clear: bool = False) -> None:
        """Free a slot and move the sequence of the last slot into it.

        `logits` and `hidden` are not moved and are therefore wrong until the next `append`, which computes them again.
        `clear` must be set for a slot whose logits are not finite.
        """
        self._cache.remove(slot, clear=clear)
        self._tokens[slot] = self._tokens[-1]
        self.truncated[slot] = self.truncated[-1]
        self._tokens.pop()
        self.truncated.pop()

    def _prefill_in_parts(
        self, first: int, prompts: Sequence[Sequence[int]], to_score: Sequence[int | None]
    ) -> tuple[tuple[Tensor, Tensor], list[list[PromptScore] | None]]:
        """Prefill the slots from `first` on, as many in one pass as `PREFILL_TOKENS` allows."""
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
                parts.append(self._prefill_and_score(first + done, prompts[part], to_score[part], scores))
            done += count
        logits, hidden = (torch.cat(column) for column in zip(*parts, strict=True))
        return (logits, hidden), scores

    def _prefill(self, first: int, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, lengths = _padded(prompts)
        return self.model.prefill(to_device(ids, self.model.device), lengths, self._cache, first)

    def _prefill_and_score(
        self,
        first: int,
        prompts: Sequence[Sequence[int]],
        to_score: Sequence[int | None],
        scores: list[list[PromptScore] | None],
    ) -> tuple[Tensor, Tensor]:
        """Prefill as `_prefill` does and append the prompts' scores to `scores`."""
        ids, lengths = _padded(prompts)
        states = self.model.prefill_states(to_device(ids, self.model.device), lengths, self._cache, first)
        for prompt_states, tokens, alternatives in zip(states, prompts, to_score, strict=True):
            scored = (
                None if alternatives is None else score_prompt(self.model.project, prompt_states, tokens, alternatives)
            )
            scores.append(scored)
        return self.model.last_logits(states, lengths)


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
    """Return the prompts as a tensor (n, T) and their lengths. A prompt is padded with its own last token, so that a
    token whose embedding is not finite cannot affect other prompts."""
    lengths = [len(prompt) for prompt in prompts]
    T = max(lengths)
    return torch.tensor([[*prompt, *[prompt[-1]] * (T - len(prompt))] for prompt in prompts]), lengths
