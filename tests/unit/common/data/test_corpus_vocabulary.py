"""One vocabulary is trained on the training documents of all corpora of a training."""

from __future__ import annotations

from pathlib import Path

from common.config import DataConfig
from common.data import END_OF_TEXT, open_corpus


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
