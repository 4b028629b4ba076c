"""A trained vocabulary gives the ids of `tokenizers`, is stored exactly, and is refused when it is damaged."""

from __future__ import annotations

import copy
import json
import random
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from common.artifacts.vocabulary import vocabulary_facts
from common.checkpoint.vocabulary_file import save_vocabulary, vocabulary_without_manifest
from common.data import END_OF_TEXT, Vocabulary, gpt2_vocabulary, read_vocabulary
from common.data.batch_encoder import BatchEncoder
from common.data.stories import story
from common.data.vocabulary import GPT2_DIGEST
from common.data.vocabulary_training import train_vocabulary
from common.errors import CheckpointError, DataError, StorageError
from tests.own_vocabulary import own_vocabulary
from tests.paths import ROOT

ODD = [
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧 🏳️‍🌈",
    "e\u0301 \u00e9",
    "\u200b\u2028\u00a0 x",
    "\r\n\t\v \f",
    "aaaaaaaa a aa aaa",
    "<|endoftext|>",
]


def odd_documents(count: int) -> list[str]:
    """Return documents of random characters of all assigned planes, mixed with spaces, digits and letters."""
    chooser = random.Random(5)
    assigned = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    common_ones = "  \n'stmdlver0123abcABC.,!-"

    def word() -> str:
        source = chooser.choice((common_ones, common_ones, assigned))
        return "".join(chooser.choice(source) for _ in range(chooser.randint(1, 9)))

    return [" ".join(word() for _ in range(60)) for _ in range(count)]


@pytest.fixture(scope="module")
def documents() -> list[str]:
    notes = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))]
    return [*ODD, *odd_documents(1500), *(story(index) for index in range(300)), *notes]


@pytest.fixture(scope="module")
def vocabulary(documents: list[str]) -> Vocabulary:
    return train_vocabulary(documents, 3000)


def test_ids_are_those_of_the_library_tokenizers_on_a_megabyte(documents: list[str], vocabulary: Vocabulary) -> None:
    assert sum(len(text.encode()) for text in documents) > 1_000_000
    peer = Tokenizer.from_str(vocabulary.to_json())
    expected = [entry.ids for entry in peer.encode_batch([t for t in documents if END_OF_TEXT not in t])]
    ours = [vocabulary.encoding.encode_ordinary(text) for text in documents if END_OF_TEXT not in text]
    assert ours == expected
    fast = BatchEncoder(vocabulary, small_characters=0).encode(documents)
    assert [ids.tolist() for ids in fast] == [vocabulary.encoding.encode_ordinary(text) for text in documents]


@given(st.text())
def test_any_text_survives_a_round_trip(text: str) -> None:
    encoding = own_vocabulary().encoding
    assert encoding.decode(encoding.encode_ordinary(text)) == text


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from(["ab", "abc", "a\u0301b", "aab\n"]))
def test_repetitive_text_has_equal_ids_too(seed: int, merges: int, letters: str) -> None:
    """Few letters give many merges with common parts, where the rules of the libraries differ most."""
    chooser = random.Random(seed)

    def words(count: int) -> str:
        return " ".join("".join(chooser.choices(letters, k=chooser.randint(1, 40))) for _ in range(count))

    texts = [words(20) for _ in range(5)]
    try:
        found = train_vocabulary(texts, 257 + merges)
    except DataError:
        return
    peer = Tokenizer.from_str(found.to_json())
    for text in [*texts, words(100), letters[0] * 300]:
        assert found.encoding.encode_ordinary(text) == peer.encode(text).ids


def test_bytes_come_first_and_end_of_text_last(vocabulary: Vocabulary) -> None:
    encoding = vocabulary.encoding
    assert vocabulary.size == encoding.n_vocab == 3000 and vocabulary.name == "train:3000"
    assert encoding.eot_token == vocabulary.end_of_text_id == 2999
    assert sorted(encoding.decode_single_token_bytes(token) for token in range(256)) == [bytes([b]) for b in range(256)]
    assert [gpt2_vocabulary().encoding.decode_single_token_bytes(token) for token in range(256)] == [
        encoding.decode_single_token_bytes(token) for token in range(256)
    ]
    lengths = vocabulary.byte_lengths
    assert lengths[-1] == 0 and lengths[:256].tolist() == [1] * 256 and lengths.max() <= 128


def test_a_smallest_vocabulary_is_bytes() -> None:
    vocabulary = train_vocabulary(["some text"], 257)
    assert vocabulary.merges == () and vocabulary.end_of_text_id == 256
    assert len(vocabulary.encoding.encode_ordinary("日本")) == 6
    assert [ids.tolist() for ids in BatchEncoder(vocabulary, small_characters=0).encode(["é a"])] == [
        vocabulary.encoding.encode_ordinary("é a")
    ]
    assert vocabulary.encoding.decode_bytes(vocabulary.encoding.encode_ordinary("é a")) == "é a".encode()


def test_training_depends_on_the_text_only(documents: list[str], vocabulary: Vocabulary) -> None:
    again = train_vocabulary(list(reversed(documents)), 3000)
    assert again.digest == vocabulary.digest


def test_too_little_text_names_the_size_that_fits() -> None:
    with pytest.raises(DataError, match=r"gives only 2\d\d; set data.tokenizer to train:2\d\d or less"):
        train_vocabulary(["abcabc abcabc"], 1000)


def test_a_file_gives_the_same_vocabulary(vocabulary: Vocabulary, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(vocabulary.to_json(), encoding="utf-8")
    found = read_vocabulary(file)
    assert (found.name, found.size, found.digest, found.merges) == (
        vocabulary.name,
        vocabulary.size,
        vocabulary.digest,
        vocabulary.merges,
    )
    assert copy.deepcopy(found) is found


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"]["merges"].pop(3),
        lambda d: d["model"]["merges"].reverse(),
        lambda d: d["model"]["vocab"].update({"a": 5}),
        lambda d: d["pre_tokenizer"].update({"add_prefix_space": True}),
        lambda d: d.pop("model"),
        lambda d: d["model"]["merges"].append(d["model"]["merges"][0]),
    ],
)
def test_a_changed_file_is_refused(
    vocabulary: Vocabulary, change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    definition = json.loads(vocabulary.to_json())
    change(definition)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(DataError, match="not a vocabulary of Tidal"):
        read_vocabulary(file)


def test_gpt2_has_the_same_form() -> None:
    gpt2 = gpt2_vocabulary()
    rebuilt = Vocabulary.from_merges(gpt2.merges)
    assert (rebuilt.name, rebuilt.size, rebuilt.digest) == ("gpt2", 50257, GPT2_DIGEST) and rebuilt.is_gpt2
    peer = Tokenizer.from_str(gpt2.to_json())
    for text in ODD[:-1]:
        assert gpt2.encoding.encode_ordinary(text) == peer.encode(text).ids
    assert gpt2.byte_lengths.max() == 128


def test_a_deeply_nested_file_is_damaged_and_no_model_is_saved_beside_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="not a vocabulary"):
        read_vocabulary(tmp_path / "tokenizer.json")
    with pytest.raises(StorageError, match="cannot be read"):
        vocabulary_facts(tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match="not a byte-level BPE of 257 entries"):
        vocabulary_without_manifest(tmp_path, 257)
    assert vocabulary_without_manifest(tmp_path, 50257).is_gpt2
    assert vocabulary_without_manifest(tmp_path / "missing", 257).is_gpt2
    with pytest.raises(CheckpointError, match="another folder"):
        save_vocabulary(train_vocabulary(["some text"], 257), tmp_path)
