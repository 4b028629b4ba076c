"""Joins the token streams of several corpora without copying them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from common.data.token_cache import Tokens


class TokenStream(Protocol):
    """A sequence of tokens of which parts can be read: an array or `JoinedTokens`."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        ...

    def __getitem__(self, part: slice, /) -> Tokens:
        """Return consecutive tokens."""
        ...


class JoinedTokens:
    """Several token streams, one after the other."""

    def __init__(self, streams: Sequence[Tokens]) -> None:
        self._streams = list(streams)
        self._ends = np.cumsum([len(stream) for stream in streams]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice, /) -> Tokens:
        """Return a copy of consecutive tokens. Raises ValueError for a step other than 1."""
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"the step {step} is not supported; read the tokens in order")
        found = [
            stream[max(start - (end - len(stream)), 0) : max(stop - (end - len(stream)), 0)]
            for stream, end in zip(self._streams, self._ends, strict=True)
        ]
        return np.concatenate(found)
