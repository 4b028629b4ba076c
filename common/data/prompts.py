"""Samples prompts from the beginnings of documents, in pools that have no prompt in common.

The hash of a prompt's tokens determines its pool: 80 % of all prompts belong to training, 10 % each to evaluation and
ablation. Therefore the pools are disjoint in every run and on every machine, and no list is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import StrEnum

import numpy as np
import torch

from common.data.corpus import Corpus, SplitName
from common.data.joined_tokens import TokenStream
from common.errors import DataError

PASSES = 4
"""Number of passes over all documents in search of enough different prompts; after them, prompts are repeated."""

BLOCK_DOCUMENTS = 4096
"""Number of documents that are looked at in one go."""


class PromptPool(StrEnum):
    """The purpose of a set of prompts. Different pools have no prompt in common."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    ABLATION = "ablation"


def document_prompts(
    corpus: Corpus,
    split: SplitName,
    n: int,
    min_tokens: int,
    max_tokens: int,
    generator: torch.Generator,
    *,
    pool: PromptPool | None = None,
) -> list[list[int]]:
    """Return n prompts of min_tokens to max_tokens tokens, sampled from the beginnings of random documents.

    With `pool`, all prompts belong to that pool. The prompts are different, but they repeat if the corpus is too small
    for n different ones. If no document has a suitable beginning, prompts may begin at any of the first 2^20 tokens.
    Raises DataError if no prompt is found at all.
    """
    if not 1 <= min_tokens <= max_tokens:
        raise ValueError(
            f"prompt lengths {min_tokens} to {max_tokens} are not a range; 1 <= min_tokens <= max_tokens is needed"
        )
    tokens, starts = corpus.tokens(split), np.asarray(corpus.documents(split))
    end_of_text = corpus.vocabulary.end_of_text_id
    found = _sample_prompts(tokens, starts, n, min_tokens, max_tokens, generator, pool, end_of_text)
    if not found:
        anywhere = np.arange(min(len(tokens), 1 << 20))
        found = _sample_prompts(tokens, anywhere, n, min_tokens, max_tokens, generator, pool, end_of_text)
    if not found:
        purpose = f" for the {pool} pool" if pool else ""
        raise DataError(
            f"no prompt of {min_tokens} to {max_tokens} tokens{purpose} in the {split} split "
            f"({len(starts)} documents, {len(tokens)} tokens); use a larger corpus or shorter prompts"
        )
    return [found[i % len(found)] for i in range(n)]


def prompt_pool(prompt: list[int]) -> PromptPool:
    """Return the pool to which a prompt belongs."""
    digest = hashlib.blake2b(np.array(prompt, dtype=np.uint32).tobytes(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < 0.8:
        return PromptPool.TRAINING
    return PromptPool.EVALUATION if share < 0.9 else PromptPool.ABLATION


def _pairs(first: torch.Tensor, second: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield the pairs of two tensors of integers (N,) as Python numbers, of which few are in memory at a time."""
    for start in range(0, len(first), BLOCK_DOCUMENTS):
        yield from zip(*(part[start : start + BLOCK_DOCUMENTS].tolist() for part in (first, second)), strict=True)


def _sample_prompts(
    tokens: TokenStream,
    starts: np.ndarray[tuple[int], np.dtype[np.int64]],
    n: int,
    shortest: int,
    longest: int,
    generator: torch.Generator,
    pool: PromptPool | None,
    end_of_text: int,
) -> list[list[int]]:
    found: list[list[int]] = []
    seen: set[tuple[int, ...]] = set()
    for _ in range(PASSES):
        order = torch.randperm(len(starts), generator=generator)
        lengths = torch.randint(shortest, longest + 1, (len(starts),), generator=generator)
        for index, length in _pairs(order, lengths):
            start = int(starts[index])
            prompt = [int(token) for token in tokens[start : start + length]]
            if end_of_text in prompt:
                prompt = prompt[: prompt.index(end_of_text)]
            if (
                len(prompt) < shortest
                or tuple(prompt) in seen
                or (pool is not None and prompt_pool(prompt) is not pool)
            ):
                continue
            seen.add(tuple(prompt))
            found.append(prompt)
            if len(found) == n:
                return found
    return found
