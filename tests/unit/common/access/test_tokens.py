"""Named tokens have the documented form, and every typing error in one is detected without a look-up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import string

import pytest

from common.access import is_well_formed, make_token, token_hash


def test_a_token_has_the_documented_form_and_a_crc_of_its_random_part() -> None:
    tokens = [make_token() for _ in range(200)]
    assert len(set(tokens)) == 200
    for token in tokens:
        assert re.fullmatch(r"tdl_[a-z2-7]{40}", token) and is_well_formed(token)
        decoded = base64.b32decode(token[4:].upper())
        assert binascii.crc32(b"tdl_" + decoded[:21]) == int.from_bytes(decoded[21:], "big")


def test_every_wrong_character_and_every_swap_is_detected() -> None:
    token = make_token()
    for place in range(len(token)):
        for character in string.ascii_letters + string.digits + "_- \u00fc":
            changed = token[:place] + character + token[place + 1 :]
            assert is_well_formed(changed) == (changed == token), changed
        swapped = token[:place] + token[place + 1 : place + 2] + token[place : place + 1] + token[place + 2 :]
        assert is_well_formed(swapped) == (swapped == token)


@pytest.mark.parametrize("text", ["", "tdl_", "administrator-token", "tdl_" + "a" * 39, "tdl_" + "a" * 41])
def test_other_texts_are_not_tokens(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(f"{make_token()}\n") and not is_well_formed(f" {make_token()}")


def test_the_stored_hash_is_the_sha256_of_the_whole_token() -> None:
    token = make_token()
    assert token_hash(token) == hashlib.sha256(token.encode("ascii")).hexdigest()
