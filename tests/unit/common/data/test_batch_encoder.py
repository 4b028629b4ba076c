"""Batches get exactly tiktoken's ids, for any text, whichever library encodes it."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from gigatoken.gigatoken_rs import load_hf_json
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from common.config import DataConfig
from common.data import END_OF_TEXT, batch_encoder, corpus, gpt2_vocabulary, load_tokenizer, open_corpus
from common.data.batch_encoder import BatchEncoder, is_plain
from common.data.vocabulary import gigatoken_definition
from common.errors import DataError

PARTS = [
    *("'s", "'S", "'ll", "'re", "'", "''", "don't", "\u2019s", END_OF_TEXT, "<|", "the", " the", "\u0130", "\u01c5"),
    *(" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\x00", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028"),
    *("\u200b", "\u200d", "\ufeff", "\u180e", "\u0301", "\u0903", "\u20dd", "٣", "½", "²", "Ⅷ", "7", "12345", "_", "-"),
    *("é", "ß", "漢字", "かな", "한글", "😀", "👨‍👩‍👧", "🇩🇪", "\ue000", "\uffff", "\U0010ffff"),
    *("ﬁ", "ſ", "\u088f", "\U00010940"),
]
"""Contractions, white space of all kinds, classes of letters and digits, emoji, private and unassigned characters."""

WHITE_SPACE = {chr(code) for code in [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)]}
WHITE_SPACE |= {"\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}
"""The characters with the property White_Space, from Unicode's PropList.txt."""
VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = [value for value in range(256) if value not in VISIBLE]
WRITTEN = [chr(value if value in VISIBLE else 256 + HIDDEN.index(value)) for value in range(256)]
"""The characters that stand for bytes in OpenAI's vocabulary files; for invisible bytes, characters from U+0100."""

characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(
    st.text(alphabet=characters, max_size=60),
    st.lists(st.one_of(st.sampled_from(PARTS), characters), max_size=40).map("".join),
)


@pytest.fixture(scope="module")
def encoder() -> BatchEncoder:
    return BatchEncoder(gpt2_vocabulary(), small_characters=0)


def encoded(encoder: BatchEncoder, documents: list[str]) -> list[list[int]]:
    return [array.tolist() for array in encoder.encode(documents)]


def tiktoken_ids(documents: list[str]) -> list[list[int]]:
    return load_tokenizer().encode_ordinary_batch(documents)


@settings(max_examples=200, deadline=None)
@given(documents=st.lists(texts, max_size=6))
def test_any_texts_get_the_ids_of_tiktoken(documents: list[str], encoder: BatchEncoder) -> None:
    assert encoded(encoder, documents) == tiktoken_ids(documents)


def test_both_libraries_and_python_agree_about_the_class_of_every_plain_character() -> None:
    # The 137,000 private characters are alike, so every 97th is enough. Planes 4 to 13 are empty.
    codes = [*range(0xD800), *range(0xE000, 0xF900, 97), *range(0xF900, 0x40000)]
    codes += [*range(0xE0000, 0xE1000), *range(0xF0000, sys.maxunicode + 1, 97)]
    plain = [chr(code) for code in codes if is_plain(chr(code))]
    assert len(plain) > 140_000  # Unicode 14, the version of Python 3.11, has 144,697 assigned characters
    exact, fast = probes()
    groups = [plain[start : start + 100] for start in range(0, len(plain), 100)]
    texts = ["".join(f"{one}a\n{one}1\n{one}!\n" for one in group) for group in groups]
    found = exact.encode_ordinary_batch(texts)
    assert fast.encode_batch_list(texts) == found
    for group, ids in zip(groups, found, strict=True):
        joined = {"letter": 1, "number": 1, "other": 1, "white": 0, "space": 3}
        expected = sum(3 * (len(one.encode()) + 2) - joined[class_of(one)] for one in group)
        assert len(ids) == expected, f"a character from U+{ord(group[0]):04X} to U+{ord(group[-1]):04X}"


def class_of(character: str) -> str:
    """Return the class of a character in GPT-2's pattern, according to Python's own tables."""
    if character == " ":
        return "space"  # belongs to the word of a letter, number or other character that follows it
    if character in WHITE_SPACE:
        return "white"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(character)[0], "other")


def probes() -> tuple[tiktoken.Encoding, Any]:
    """Return tokenisers of both libraries with GPT-2's pattern that reveal how text is split into words.

    Their merges join every byte with a following "a", "1" or "!" to one id, if both are in one word. So the number of
    ids shows a wrong split. With GPT-2's own merges, most wrong splits do not change any id, because few of its tokens
    have characters of two classes.
    """
    merges = [(bytes([first]), second) for first in range(256) for second in (b"a", b"1", b"!")]
    tokens = [*(bytes([value]) for value in range(256)), *(first + second for first, second in merges)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    exact = tiktoken.Encoding("probe", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    definition = json.loads(gigatoken_definition(gpt2_vocabulary()))
    definition["model"]["vocab"] = {written(token): rank for token, rank in ranks.items()}
    definition["model"]["merges"] = [f"{written(first)} {written(second)}" for first, second in merges]
    return exact, load_hf_json(json.dumps(definition))


def written(token: bytes) -> str:
    """Return the bytes in the characters that OpenAI's vocabulary files use for them."""
    return "".join(map(WRITTEN.__getitem__, token))


def test_characters_that_this_python_does_not_know_get_the_ids_of_tiktoken(encoder: BatchEncoder) -> None:
    unknown = [chr(code) for code in range(0x378, 0x1FB00) if not 0xD800 <= code < 0xE000 and not is_plain(chr(code))]
    # If the character is a sign, the second apostrophe belongs to its word; after a letter or a number, the apostrophe
    # begins the contraction 's.
    documents = [f"'{one}'s" for one in unknown[::5]]
    assert len(documents) > 1_000
    assert encoded(encoder, documents) == tiktoken_ids(documents)


@pytest.mark.parametrize("unit", ["a", "ab c", "1234567890", " ", "\n", "!?#", "漢字", "'s", END_OF_TEXT, "é", "\xa0 "])
def test_long_runs_get_the_ids_of_tiktoken(unit: str, encoder: BatchEncoder) -> None:
    run = unit * (20_000 // len(unit))
    documents = [run, f"{run}x", f" {run}", "", f"{run}\n{run}"]
    assert encoded(encoder, documents) == tiktoken_ids(documents)


def test_a_batch_for_several_cores_keeps_the_order(encoder: BatchEncoder) -> None:
    documents = [
        f"Document {number} has {'very ' * (number % 9)}few words, {number * 7919}." for number in range(60_000)
    ]
    assert sum(map(len, documents)) > 3 << 20  # so much text that gigatoken divides it among threads
    found = encoder.encode(documents)
    assert found[0].dtype == np.uint32
    assert [array.tolist() for array in found[::13]] == load_tokenizer().encode_ordinary_batch(documents[::13])
    alone = BatchEncoder(gpt2_vocabulary(), parallel=False, small_characters=0).encode(documents)
    assert np.array_equal(np.concatenate(found), np.concatenate(alone))


def test_emptying_the_memory_of_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = batch_encoder._load_gigatoken
    monkeypatch.setattr(batch_encoder, "_load_gigatoken", lambda definition: (loads.append(1), load(definition))[1])
    monkeypatch.setattr(batch_encoder, "KNOWN_WORDS_BYTES", -(1 << 40))
    monkeypatch.setattr(batch_encoder, "RENEWAL_CHARACTERS", 1)
    encoder = BatchEncoder(gpt2_vocabulary(), small_characters=0)
    for _ in range(3):
        documents = ["One day, a cat sat.", "\u088f", "The end."]
        assert encoded(encoder, documents) == tiktoken_ids(documents)
    assert len(loads) == 3


def test_a_small_corpus_does_not_load_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    encoder = BatchEncoder(gpt2_vocabulary(), small_characters=10)
    documents = ["One day, a cat sat.", ""]
    assert encoded(encoder, documents) == tiktoken_ids(documents)
    with pytest.raises(DataError, match=r"needs the package gigatoken; install tidal\[torch\]"):
        encoder.encode(["The end."])


def test_the_token_cache_holds_the_ids_of_tiktoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BATCH_CHARACTERS", 1 << 19)
    parts = [part for part in PARTS if part != "\x00"]  # a text file may not have a NUL
    documents = [f"{parts[n % len(parts)]}x{n} {'Once upon a time. ' * (n % 40)}é{n}" for n in range(8_000)]
    (tmp_path / "c.txt").write_text(END_OF_TEXT.join(documents), encoding="utf-8", newline="")
    (tmp_path / "v.txt").write_text("A dog ran.", encoding="utf-8")
    config = DataConfig(source=str(tmp_path / "c.txt"), validation_source=str(tmp_path / "v.txt"))
    opened = open_corpus(config, data_dir=tmp_path)
    kept = [text for text in (one.strip() for one in END_OF_TEXT.join(documents).split(END_OF_TEXT)) if text]
    expected = [[*ids, gpt2_vocabulary().end_of_text_id] for ids in load_tokenizer().encode_ordinary_batch(kept)]
    assert opened.train.tobytes() == np.concatenate(expected).astype(np.uint16).tobytes()
    starts = np.cumsum([0, *map(len, expected[:-1])], dtype=np.int64)
    assert opened.documents("train").tobytes() == starts.tobytes()
