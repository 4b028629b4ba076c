"""The values of `data.tokenizer`: `gpt2`, or `train:N` for a vocabulary of N entries that is trained on the corpus.

Also what a process without torch needs to describe a vocabulary; `common.data.vocabulary` has the vocabulary itself.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

GPT2: Final = "gpt2"
"""GPT-2's vocabulary."""
GPT2_SIZE: Final = 50257
GPT2_DIGEST: Final = "18572f6df530fd5ea8da519b5930283884ee9a14f41b8499ac5803ebed135813"
"""Digest of GPT-2's vocabulary, written here so that comparing with it does not load the vocabulary."""
VOCABULARY_FILE: Final = "tokenizer.json"
"""Name of the file of a vocabulary, in the folder of an experiment, of a checkpoint and of an export."""
VOCABULARY_KEY: Final = "vocabulary"
"""Key of the description of the vocabulary in the manifest of a model."""
MOST_FILE_BYTES: Final = 32 << 20
"""Largest size of a vocabulary's file. A vocabulary of 65,536 entries takes about 3 MB."""
BYTES: Final = 256
"""Number of entries that are single bytes. They come first."""
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


@lru_cache(maxsize=1)
def symbol_of_byte() -> dict[int, str]:
    """Return GPT-2's symbol of each byte: the character of Latin-1 if it is visible, otherwise one from U+0100 on.

    This is `bytes_to_unicode` in OpenAI's `encoder.py` of GPT-2. The order of the bytes is that of the ids.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(BYTES) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(BYTES + i) for i, byte in enumerate(hidden)}
