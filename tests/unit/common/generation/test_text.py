"""Streamed text contains only complete characters, and its pieces join to the whole text."""

from __future__ import annotations

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidInputError
from common.generation.text import TextStream, encode_prompt, token_bytes

BYTES = tiktoken.Encoding(
    "bytes",
    pat_str=r"[\s\S]",
    mergeable_ranks={bytes([value]): value for value in range(256)},
    special_tokens={"<|endoftext|>": 256},
)


def test_a_character_appears_with_the_token_that_completes_it() -> None:
    stream = TextStream(BYTES)
    assert [stream.push(value) for value in "aé€".encode()] == ["a", "", "é", "", "", "€"]
    assert stream.finish() == ""


def test_an_incomplete_character_is_shown_at_the_end() -> None:
    stream = TextStream(BYTES)
    assert stream.push("é".encode()[0]) == ""
    assert stream.finish() == "\ufffd"
    assert TextStream(BYTES).push("é".encode()[0], last=True) == "\ufffd"


@given(st.lists(st.integers(0, 255)))
def test_pieces_join_to_what_decoding_all_at_once_gives(tokens: list[int]) -> None:
    stream = TextStream(BYTES)
    pieces = [stream.push(token) for token in tokens]
    assert "".join([*pieces, stream.finish()]) == bytes(tokens).decode("utf-8", errors="replace")


def test_an_id_only_the_model_knows_is_a_replacement_character() -> None:
    assert token_bytes(BYTES, 300).decode() == "\ufffd"


def test_end_of_text_in_a_prompt_is_ordinary_text() -> None:
    assert encode_prompt(BYTES, "<|endoftext|>", 257) == list(b"<|endoftext|>")


@pytest.mark.parametrize("tokens", [[-1], [3, 257]])
def test_ids_outside_the_vocabulary_are_refused(tokens: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=str(tokens[-1])):
        encode_prompt(BYTES, tokens, 257)
