"""Batches get exactly tiktoken's ids, for any text, whichever library encodes it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import DataConfig
from common.data import END_OF_TEXT, END_OF_TEXT_ID, batch_encoder, corpus, load_tokenizer, open_corpus
from common.data.batch_encoder import BatchEncoder, is_plain
from common.errors import DataError

PARTS = [
    *("'s", "'S", "'ll", "'re", "'", "''", "don't", "\u2019s", END_OF_TEXT, "<|", "the", " the", "\u0130", "\u01c5"),
    *(" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\x00", "\x1c", "\x85", "\xa0", "\u1680", "\u2003", "\u2028"),
    *("\u200b", "\u200d", "\ufeff", "\u180e", "\u0301", "\u0903", "\u20dd", "٣", "½", "²", "Ⅷ", "7", "12345", "_", "-"),
    *("é", "ß", "漢字", "かな", "한글", "😀", "👨‍👩‍👧", "🇩🇪", "\ue000", "\uffff", "\U0010ffff"),
    *("ﬁ", "ſ", "\u088f", "\U00010940"),
]
"""Contractions, white space of all kinds, classes of letters and digits, emoji, private and unassigned characters."""

characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(
    st.text(alphabet=characters, max_size=60),
    st.lists(st.one_of(st.sampled_from(PARTS), characters), max_size=40).map("".join),
)


@pytest.fixture(scope="module")
def encoder() -> BatchEncoder:
    return BatchEncoder(small_characters=0)


def require_same(encoder: BatchEncoder, documents: list[str]) -> None:
    found = [array.tolist() for array in encoder.encode(documents)]
    assert found == load_tokenizer().encode_ordinary_batch(documents)


@settings(max_examples=200, deadline=None)
@given(documents=st.lists(texts, max_size=6))
def test_any_texts_get_the_ids_of_tiktoken(documents: list[str], encoder: BatchEncoder) -> None:
    require_same(encoder, documents)


def test_every_character_gets_the_ids_of_tiktoken(encoder: BatchEncoder) -> None:
    # The 137,000 private characters are alike; every 97th is enough.
    codes = [
        *range(0xD800),
        *range(0xE000, 0xF900, 97),
        *range(0xF900, 0xF0000),
        *range(0xF0000, sys.maxunicode + 1, 97),
    ]
    characters = [chr(code) for code in codes]
    plain = [character for character in characters if is_plain(character)]
    assert len(plain) > 140_000  # Unicode 14, the version of Python 3.11, has 144,697 assigned characters
    # Whether a character joins a letter, a digit or a space before it shows its class: letter, digit, space or other.
    around = [f"a{one}1{one} {one}" for one in plain]
    require_same(encoder, ["".join(around[start : start + 500]) for start in range(0, len(around), 500)])
    others = [one for one in characters if not is_plain(one)][::97]
    require_same(encoder, ["x ".join(others), *others[:50]])


@pytest.mark.parametrize("unit", ["a", "ab c", "1234567890", " ", "\n", "!?#", "漢字", "'s", END_OF_TEXT, "é", "\xa0 "])
def test_long_runs_get_the_ids_of_tiktoken(unit: str, encoder: BatchEncoder) -> None:
    run = unit * (20_000 // len(unit))
    require_same(encoder, [run, f"{run}x", f" {run}", "", f"{run}\n{run}"])


def test_a_batch_for_several_cores_keeps_the_order(encoder: BatchEncoder) -> None:
    documents = [
        f"Document {number} has {'very ' * (number % 9)}few words, {number * 7919}." for number in range(60_000)
    ]
    assert sum(map(len, documents)) > 3 << 20  # gigatoken divides it among threads
    found = encoder.encode(documents)
    assert found[0].dtype == np.uint32
    assert [array.tolist() for array in found[::13]] == load_tokenizer().encode_ordinary_batch(documents[::13])
    alone = BatchEncoder(parallel=False, small_characters=0).encode(documents)
    assert np.array_equal(np.concatenate(found), np.concatenate(alone))


def test_emptying_the_memory_of_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = batch_encoder._load_gigatoken
    monkeypatch.setattr(batch_encoder, "_load_gigatoken", lambda: (loads.append(1), load())[1])
    monkeypatch.setattr(batch_encoder, "KNOWN_WORDS_BYTES", -(1 << 40))
    encoder = BatchEncoder(small_characters=0)
    for _ in range(3):
        require_same(encoder, ["One day, a cat sat.", "\u088f", "The end."])
    assert len(loads) == 3


def test_a_small_corpus_does_not_load_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken.gigatoken_rs", None)
    encoder = BatchEncoder(small_characters=10)
    require_same(encoder, ["One day, a cat sat.", ""])
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
    expected = [[*ids, END_OF_TEXT_ID] for ids in load_tokenizer().encode_ordinary_batch(kept)]
    assert opened.train.tobytes() == np.concatenate(expected).astype(np.uint16).tobytes()
    starts = np.cumsum([0, *map(len, expected[:-1])], dtype=np.int64)
    assert opened.documents("train").tobytes() == starts.tobytes()
