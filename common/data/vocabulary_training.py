"""Trains a byte-level BPE vocabulary on documents, with the library `tokenizers`.

The result depends only on the text that is read and the size, not on the number of cores or the order of documents. The
library counts words, so its memory depends on the number of different words. At most `TRAINING_CHARACTERS` are read.
`common.data.corpus_vocabulary` decides which documents are used and stores the result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush

from common.config.tokenizers import TRAINING_CHARACTERS
from common.data.vocabulary import BYTES, Vocabulary
from common.errors import DataError

LONGEST_ENTRY = 128
"""Most bytes of an entry, as in GPT-2. Longer ones would be lines of dashes, for example."""
SMALLEST_COUNT = 2
"""Smallest number of times that two neighbours must occur to become an entry."""
REPORT_DOCUMENTS = 512
"""Number of documents after which the progress is reported."""

Progress = Callable[[int], None]
"""A progress callback, called with the number of documents read; it may raise to abort."""


def train_vocabulary(
    documents: Iterable[str],
    size: int,
    *,
    progress: Progress = lambda _: None,
    merging: Callable[[], None] = lambda: None,
) -> Vocabulary:
    """Return the vocabulary of `size` entries that BPE learns from the documents.

    `merging` is called once when all documents are read; the merges then take up to a minute, during which nothing
    is reported. Raises DataError if the text has too few different words for `size` entries.
    """
    try:
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel
        from tokenizers.trainers import BpeTrainer
    except ImportError as error:
        raise DataError("training a vocabulary needs the package tokenizers; install tidal[torch]") from error
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = BpeTrainer(
        vocab_size=size - 1,  # `<|endoftext|>` is not learned
        min_frequency=SMALLEST_COUNT,
        max_token_length=LONGEST_ENTRY,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first_characters(documents, progress, merging), trainer)
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    found = BYTES + len(merges) + 1
    if found < size:
        raise DataError(
            f"the text is too small for a vocabulary of {size} entries: it gives only {found}; set data.tokenizer to "
            f"train:{found} or less, or use more text"
        )
    return Vocabulary.from_merges(merges)


def alternating(corpora: Sequence[Iterator[str]]) -> Iterator[str]:
    """Yield the documents of all corpora, always the next one of the corpus with the fewest characters so far."""
    waiting = [(0, number) for number in range(len(corpora))]
    while waiting:
        done, number = heappop(waiting)
        if (text := next(corpora[number], None)) is not None:
            yield text
            heappush(waiting, (done + len(text), number))


def _first_characters(documents: Iterable[str], progress: Progress, merging: Callable[[], None]) -> Iterator[str]:
    left, done = TRAINING_CHARACTERS, 0
    for text in documents:
        yield text
        left -= len(text)
        done += 1
        if done % REPORT_DOCUMENTS == 0:
            progress(done)
        if left <= 0:
            break
    progress(done)
    merging()
