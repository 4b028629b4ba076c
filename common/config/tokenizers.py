"""The values of `data.tokenizer`: `gpt2`, or `train:N` for a vocabulary of N entries that is trained on the corpus."""

from __future__ import annotations

import re
from typing import Final

GPT2: Final = "gpt2"
"""GPT-2's vocabulary."""
GPT2_SIZE: Final = 50257
SMALLEST_SIZE: Final = 257
"""Number of entries without merges: the 256 bytes and `<|endoftext|>`."""
LARGEST_SIZE: Final = 65536
"""Largest number of entries, because a token cache stores a token as 16 bits."""
TRAINING_CHARACTERS: Final = 1 << 26
"""Number of characters of a corpus after which the training of a vocabulary reads no further document. More text hardly
changes which words are frequent, and the library reads only 1 to 2 MB per second and core."""
_TRAINED: Final = re.compile(r"train:([1-9][0-9]{0,8})", re.ASCII)


def trained_size(tokenizer: str) -> int | None:
    """Return N for `train:N`, and None for `gpt2`. Raises ValueError for any other value, and for N out of range."""
    if tokenizer == GPT2:
        return None
    match = _TRAINED.fullmatch(tokenizer)
    if match is None:
        raise ValueError(f"the tokenizer {tokenizer[:40]!r} is neither {GPT2} nor train:N, for example train:4096")
    size = int(match[1])
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(
            f"a trained vocabulary has {SMALLEST_SIZE} to {LARGEST_SIZE} entries, but the tokenizer is {tokenizer}"
        )
    return size


def trained_name(size: int) -> str:
    """Return the value of `data.tokenizer` for a trained vocabulary of `size` entries."""
    return f"train:{size}"
