"""Converts tokens to text as they are generated, and prompts to tokens.

A character that spans several tokens is returned with the token that completes it, so the pieces can simply be joined.
Stop strings are found in the text, across tokens. Prompts are encoded as ordinary text: `<|endoftext|>` in a prompt has
no special meaning.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import tiktoken

from common.errors import InvalidInputError


class TextStream:
    """Incremental UTF-8 decoding of one sequence of tokens."""

    def __init__(self, tokenizer: tiktoken.Encoding) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int, *, last: bool = False) -> str:
        """Return the text that this token completes. With `last`, incomplete bytes are returned as U+FFFD."""
        return self._decoder.decode(token_bytes(self._tokenizer, token), final=last)

    def finish(self) -> str:
        """Return U+FFFD if the tokens end inside a character, else an empty string."""
        return self._decoder.decode(b"", final=True)


class StopScanner:
    """Looks for stop strings in a growing text and holds back text that may be the beginning of a stop string."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Return the text that can be sent now, and whether a stop string was found.

        If one was found, the returned text ends before it.
        """
        if not self._stop:
            return text, False
        self._held += text
        found = min((at for stop in self._stop if (at := self._held.find(stop)) >= 0), default=None)
        if found is not None:
            ready, self._held = self._held[:found], ""
            return ready, True
        keep = max(_overlap(self._held, stop) for stop in self._stop)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready, False

    def finish(self) -> str:
        """Return the text that was held back. Call this at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a prefix of `stop` shorter than `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def token_bytes(tokenizer: tiktoken.Encoding, token: int) -> bytes:
    """Return the bytes of one token; U+FFFD for an id that the tokenizer does not have (padding of the vocabulary)."""
    try:
        return tokenizer.decode_single_token_bytes(token)
    except KeyError:
        return "\ufffd".encode()


def token_text(tokenizer: tiktoken.Encoding, token: int) -> str:
    r"""Return one token as a string: its text, or for example `bytes:\xe2\x80` when it is not valid UTF-8 by itself."""
    found = token_bytes(tokenizer, token)
    try:
        return found.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)


class EncodedPrompt(NamedTuple):
    """Token ids that `encode_prompt` has checked. Several continuations can share them."""

    ids: list[int]


def encode_prompt(tokenizer: tiktoken.Encoding, prompt: str | Sequence[int], vocab_size: int) -> list[int]:
    """Return the token ids of a prompt given as text or as ids.

    Raises InvalidInputError for an id outside the model's vocabulary.
    """
    ids = tokenizer.encode_ordinary(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
    unknown = next((token for token in ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise InvalidInputError(f"the prompt has token {unknown}; the model's vocabulary is 0..{vocab_size - 1}")
    return ids
