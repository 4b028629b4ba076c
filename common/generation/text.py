"""Tokens to text while they arrive: a character that spans tokens appears with the token that completes it.

The pieces joined are the text. Stop strings are found in the text, across tokens. Prompts are encoded as ordinary text:
`<|endoftext|>` in one is just these characters.
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
        """The text that this token completes; with `last`, also what stays incomplete, as U+FFFD."""
        return self._decoder.decode(token_bytes(self._tokenizer, token), final=last)

    def finish(self) -> str:
        """U+FFFD if the tokens end inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)


class StopScanner:
    """Looks for stop strings in a growing text and holds back what may be the beginning of one."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can be given out now, and whether a stop string was met, before which it ends."""
        if not self._stop:
            return text, False
        self._held += text
        found = min((at for stop in self._stop if (at := self._held.find(stop)) >= 0), default=None)
        if found is not None:
            given, self._held = self._held[:found], ""
            return given, True
        keep = max(_overlap(self._held, stop) for stop in self._stop)
        given, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return given, False

    def finish(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`, short of all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def token_bytes(tokenizer: tiktoken.Encoding, token: int) -> bytes:
    """The bytes of one token; U+FFFD for an id that only the model knows (a padded vocabulary)."""
    try:
        return tokenizer.decode_single_token_bytes(token)
    except KeyError:
        return "\ufffd".encode()


def token_text(tokenizer: tiktoken.Encoding, token: int) -> str:
    r"""One token as a string of its own: its text, or `bytes:\xe2\x80` where that is no whole character."""
    found = token_bytes(tokenizer, token)
    try:
        return found.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)


class EncodedPrompt(NamedTuple):
    """What `encode_prompt` gave: checked token ids, for several continuations to share."""

    ids: list[int]


def encode_prompt(tokenizer: tiktoken.Encoding, prompt: str | Sequence[int], vocab_size: int) -> list[int]:
    """Token ids of a prompt given as text or as ids. Raises InvalidInputError for an id the model does not know."""
    ids = tokenizer.encode_ordinary(prompt) if isinstance(prompt, str) else [int(token) for token in prompt]
    unknown = next((token for token in ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise InvalidInputError(f"prompt holds token {unknown}; the model knows 0..{vocab_size - 1}")
    return ids
