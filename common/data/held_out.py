"""Decides which text of a corpus without a validation part is held out for validation.

Documents are held out by their hash. If this leaves a split of a small corpus empty, the end of the other split is
moved to it (`common.data.token_cache.move_tail`), inside the document if there is only one. A vocabulary is trained
before there are tokens, so `training_documents` makes the same division of the text; `move_tail` counts bytes then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

TRAINING_TAIL = 0.5
"""Share of the held-out text that is moved to the training split if all documents are held out."""


def is_held_out(text: str, fraction: float) -> bool:
    """Return whether the hash of the document's text is among the lowest `fraction` of all hashes."""
    value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return value / 2**64 < fraction


def ideal_cut(total: int, fraction: float) -> int:
    """Return where the last `fraction` of a split of `total` tokens or bytes begins; at least 2 are on each side."""
    return max(2, min(total - 2, round(total * (1 - fraction))))


def nearest_document(starts: npt.NDArray[np.int64], cut: int) -> int:
    """Return the number of the document, but not the first, whose start is nearest to `cut`."""
    return 1 + int(np.abs(starts[1:] - cut).argmin())


def training_documents(read: Callable[[], Iterator[str]], fraction: float) -> Iterator[str]:
    """Yield the documents of a corpus without those held out for validation.

    `read` begins to read the corpus. It is called twice, because only a first pass shows whether a split stays empty;
    this pass ends as soon as it has found a document for each.
    """
    sizes: list[int] = []
    found: set[bool] = set()
    for text in read():
        sizes.append(len(text.encode()))
        found.add(is_held_out(text, fraction))
        if len(found) == 2:
            yield from (text for text in read() if not is_held_out(text, fraction))
            return
    if not found:
        return
    all_held_out = found == {True}
    cut = ideal_cut(sum(sizes), TRAINING_TAIL if all_held_out else fraction)
    if len(sizes) > 1:
        first = nearest_document(np.cumsum([0, *sizes[:-1]]), cut)
        yield from islice(read(), first, None) if all_held_out else islice(read(), first)
        return
    for text in read():
        content = text.encode()
        yield (content[cut:] if all_held_out else content[:cut]).decode(errors="ignore")
