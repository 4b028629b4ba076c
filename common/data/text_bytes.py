"""Counts the UTF-8 bytes of the text that tokens stand for; a loss per byte is a loss divided by this number.

All vocabularies work on bytes: the bytes of a document's tokens, one after the other, are exactly its UTF-8 text, so
the sum of the tokens' lengths is exact even where a token ends inside a character. `<|endoftext|>` separates documents
and counts as 0 bytes, because it is not part of any text.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from common.data.vocabulary import Vocabulary

BLOCK_TOKENS = 1 << 22
"""Number of tokens that are counted at a time, so that the memory stays small for a corpus of any size."""


def text_bytes(
    tokens: npt.NDArray[np.integer], vocabulary: Vocabulary, heartbeat: Callable[[], None] = lambda: None
) -> int:
    """Return the number of UTF-8 bytes of the text of `tokens`, an array of any shape, in `vocabulary`.

    `heartbeat` is called after every 4 million tokens. Raises IndexError for a token outside the vocabulary.
    """
    lengths, flat, total = vocabulary.byte_lengths, tokens.reshape(-1), 0
    for start in range(0, len(flat), BLOCK_TOKENS):
        block = flat[start : start + BLOCK_TOKENS]
        total += int(lengths[block].sum(dtype=np.int64))
        heartbeat()
    return total
