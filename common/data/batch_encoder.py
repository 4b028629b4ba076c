"""Encodes batches of documents to tokens of a vocabulary with all cores, with exactly the ids of tiktoken.

    encoder = BatchEncoder(gpt2_vocabulary())
    arrays = encoder.encode(["One day, a cat sat.", "The end."])      # one array of ids per document

gigatoken does the work: it remembers the ids of words that it has seen, and is many times faster than tiktoken, whose
ids are the reference. tiktoken itself encodes the first batches, because this takes less time than loading gigatoken,
and it encodes every document about which the two libraries could disagree. Measurements: docs/research/tokenising.md.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import unicodedata
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import psutil

from common.data.vocabulary import Vocabulary, gigatoken_definition
from common.errors import DataError

if TYPE_CHECKING:
    from gigatoken.gigatoken_rs import BPETokenizer

Ids = npt.NDArray[np.uint32]

SMALL_CHARACTERS = 1 << 20
"""Number of characters after which gigatoken is loaded, which takes a second. Batches before that use tiktoken, which
encodes eight million characters in a second."""
KNOWN_WORDS_BYTES = min(512, 64 * (os.cpu_count() or 1)) << 20
"""Growth of this process in bytes after which gigatoken is loaded again, so that it forgets the words it has seen. It
remembers them for each core, in version 0.10 without a limit: 1 MB of text without repetitions takes 6.5 MB."""
RENEWAL_CHARACTERS = 1 << 25
"""Smallest number of characters between two loads, so that growth for another reason cannot slow every batch."""
_ASCII = bytes(range(128))


class BatchEncoder:
    """Encodes documents. Special-token text such as `<|endoftext|>` in a document is encoded as ordinary text.

    With `parallel`, one call uses all cores if its documents have several MiB. Calls must not overlap. Other Python
    threads continue to run during a call.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, parallel: bool = True, small_characters: int = SMALL_CHARACTERS
    ) -> None:
        self._parallel = parallel
        self._remaining_small = small_characters
        self._vocabulary = vocabulary
        self._encoding = vocabulary.encoding
        self._fast: BPETokenizer | None = None
        self._process = psutil.Process()
        self._memory_at_load = 0
        self._since_load = 0

    def encode(self, texts: list[str]) -> list[Ids]:
        """Return the ids of each document, without an end-of-text token. The arrays may share their memory.

        Raises DataError if gigatoken is needed and not installed, and UnicodeEncodeError for half a surrogate pair,
        which the readers of files reject.
        """
        if self._remaining_small > 0:
            self._remaining_small -= sum(map(len, texts))
            return [self._exact(text) for text in texts]
        plain = [is_plain(text) for text in texts]
        fast = iter(self._encode_fast([text for text, good in zip(texts, plain, strict=True) if good]))
        return [next(fast) if good else self._exact(text) for text, good in zip(texts, plain, strict=True)]

    @cached_property
    def _definition(self) -> bytes:
        return gigatoken_definition(self._vocabulary)

    def _exact(self, text: str) -> Ids:
        return np.asarray(self._encoding.encode_to_numpy(text, disallowed_special=()), dtype=np.uint32)

    def _encode_fast(self, texts: list[str]) -> list[Ids]:
        if not texts:
            return []
        import awkward

        ragged = self._gigatoken().encode_batch(texts, parallel=self._parallel)
        self._since_load += sum(map(len, texts))
        ids = awkward.to_numpy(awkward.flatten(ragged))
        ends = np.cumsum(awkward.to_numpy(awkward.num(ragged)))
        return [ids[start:end] for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]

    def _gigatoken(self) -> BPETokenizer:
        if self._since_load >= RENEWAL_CHARACTERS and self._memory() - self._memory_at_load > KNOWN_WORDS_BYTES:
            self._fast = None  # frees the memory of known words before the new tokeniser needs some
            _return_free_memory()
        if self._fast is None:
            self._fast = _load_gigatoken(self._definition)
            self._memory_at_load, self._since_load = self._memory(), 0
        return self._fast

    def _memory(self) -> int:
        """Return the resident memory of this process in bytes."""
        return int(self._process.memory_info().rss)


def is_plain(text: str) -> bool:
    """Return whether all versions of Unicode that the two libraries use agree about every character of the text.

    The libraries split words by the classes of characters, from different versions of Unicode. The class of a character
    never changes once assigned, so they agree about all characters that this Python's older version of Unicode knows.
    """
    if text.isascii():
        return True
    # Removing the ASCII bytes first makes this several times faster than searching the whole text.
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    return _unassigned().search(rest) is None


def _return_free_memory() -> None:
    """Return the freed memory of this process to the system, if its C library can (glibc).

    Without this, half of the memory of known words stays with the process and counts as in use: when 0.7 GB of text
    with many new words are encoded, the peak is 530 MiB instead of 449.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _unassigned() -> re.Pattern[str]:
    """Return a pattern for one character that is unassigned in this Python's version of Unicode, or a surrogate."""
    ranges, start = [], None
    for code in range(sys.maxunicode + 2):
        unknown = code <= sys.maxunicode and unicodedata.category(chr(code)) in ("Cn", "Cs")
        if unknown and start is None:
            start = code
        elif not unknown and start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return re.compile(f"[{''.join(ranges)}]")


def _load_gigatoken(definition: bytes) -> BPETokenizer:
    """Return a gigatoken tokeniser with an empty memory of words, in 0.2 s. Raises DataError if it is not installed."""
    try:
        from gigatoken.gigatoken_rs import BPETokenizer, load_hf_json
    except ImportError as error:
        raise DataError("tokenising a corpus needs the package gigatoken; install tidal[torch]") from error
    tokenizer = load_hf_json(definition)
    assert isinstance(tokenizer, BPETokenizer)
    return tokenizer
