"""One vocabulary is trained on the training documents of all corpora of a training."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from common.config import DataConfig
from common.data import END_OF_TEXT, Vocabulary, corpus_vocabulary, open_corpus
from common.data.held_out import is_held_out
from common.data.vocabulary_training import alternating, train_vocabulary


def write(path: Path, documents: list[str]) -> str:
    path.write_text(f"\n{END_OF_TEXT}\n".join(documents), encoding="utf-8")
    return path.name


def test_several_corpora_share_a_vocabulary_that_knows_the_words_of_all(tmp_path: Path) -> None:
    cats = write(tmp_path / "cats.txt", [f"kittens purr quietly number {n}" for n in range(80)])
    seas = write(tmp_path / "seas.txt", [f"lighthouses blink slowly number {n}" for n in range(80)])
    config = DataConfig.model_validate(
        {"sources": [{"source": cats}, {"source": seas, "weight": 2}], "tokenizer": "train:330"}
    )
    corpus = open_corpus(config, data_dir=tmp_path)
    vocabulary = corpus.vocabulary
    assert vocabulary.size == 330
    for part, words in zip(corpus.parts, ("kittens purr quietly", "lighthouses blink slowly"), strict=True):
        document = part.train.tokens[: part.train.documents[1]]
        assert document[-1] == vocabulary.end_of_text_id
        assert len(document) < len(words) / 2, "words of both corpora have tokens of their own"
    folders = sorted(path.name for path in (tmp_path / "cache").glob("[!.]*[!k]"))
    again = open_corpus(config, data_dir=tmp_path)
    assert again.digest == corpus.digest and again.vocabulary.digest == vocabulary.digest
    assert sorted(path.name for path in (tmp_path / "cache").glob("[!.]*[!k]")) == folders
    assert len(folders) == 3, "two token caches and the vocabulary"


def only_document(held_out: bool, fraction: float = 0.1) -> str:
    """Return a document whose hash is held out or not. Its first and its second half have other words."""
    for number in range(1000):
        text = " ".join([f"kittens purr {number}"] * 200 + [f"lighthouses blink {number}"] * 150)
        if is_held_out(text, fraction) == held_out:
            return text
    raise AssertionError


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("count", [1, 12])
def test_the_vocabulary_of_a_corpus_without_one_split_knows_nothing_of_its_validation_text(
    tmp_path: Path, held_out: bool, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fraction = 0.45
    documents = [only_document(held_out, fraction)] if count == 1 else []
    number = 0
    while len(documents) < count:
        text = f"number {number} " + "kittens purr quietly " * (number % 7 + 1)
        documents += [text.strip()] * (is_held_out(text.strip(), fraction) == held_out)
        number += 1
    write(tmp_path / "small.txt", documents)
    seen: list[str] = []
    original = train_vocabulary

    def train(texts: Iterable[str], size: int, **arguments: Any) -> Vocabulary:
        seen.extend(texts)
        return original(seen, size, **arguments)

    monkeypatch.setattr(corpus_vocabulary, "train_vocabulary", train)
    config = DataConfig.model_validate(
        {"source": "small.txt", "tokenizer": "train:270", "validation_fraction": fraction}
    )
    corpus = open_corpus(config, data_dir=tmp_path)
    decode = corpus.vocabulary.encoding.decode
    splits = corpus.parts[0].train, corpus.parts[0].validation
    training, validation = (decode(split.tokens.tolist()).replace(END_OF_TEXT, "") for split in splits)
    both = validation + training if held_out else training + validation
    assert both == "".join(documents), "the split that was empty has the end of the other one"
    text = "".join(seen)
    assert text and (training.endswith(text) if held_out else training.startswith(text))
    assert len(training) - len(text) < 20, "at most the token across the border is missing"
    assert count == 1 or text == training


def test_long_corpora_contribute_equally_to_the_vocabulary_in_any_order() -> None:
    texts = {name: [f"{name}{n}" * (3 if name == "b" else 1) for n in range(1000, 1300)] for name in "abc"}
    texts["c"] = texts["c"][:4]
    for order in ("abc", "bca", "cab"):
        chosen = [*islice(alternating([iter(texts[name]) for name in order]), 200)]
        characters = {name: sum(len(text) for text in chosen if text[0] == name) for name in order}
        assert characters["c"] == 20, "a short corpus is read completely"
        assert abs(characters["a"] - characters["b"]) <= 15
