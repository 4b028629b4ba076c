"""The token cache contains exactly the text, is built once, and is rejected if it is stale or damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.config import DataConfig
from common.data import (
    END_OF_TEXT,
    Corpus,
    gpt2_vocabulary,
    load_tokenizer,
    open_corpus,
)
from common.errors import DataError, StorageError

STORIES = [f"Once there was a cat number {n}. It sat {'very ' * (n % 7)}still." for n in range(200)]


def text_file(folder: Path, documents: list[str] = STORIES, name: str = "corpus.txt") -> Path:
    path = folder / name
    path.write_text(f"\n{END_OF_TEXT}\n".join(documents), encoding="utf-8")
    return path


def open_(path: Path | str, data_dir: Path, **more: Any) -> Corpus:
    return open_corpus(DataConfig(source=str(path), **more), data_dir=data_dir)


def documents_of(corpus: Corpus, split: Any) -> list[str]:
    """Return the documents, decoded by their offsets; assert that each ends with end-of-text."""
    tokens, starts = np.asarray(corpus.tokens(split)), corpus.documents(split).tolist()
    texts = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        assert tokens[end - 1] == gpt2_vocabulary().end_of_text_id
        texts.append(load_tokenizer().decode(tokens[start : end - 1].tolist()))
    return texts


def test_every_document_is_in_exactly_one_split_followed_by_end_of_text(tmp_path: Path) -> None:
    corpus = open_(text_file(tmp_path), tmp_path)
    train, validation = documents_of(corpus, "train"), documents_of(corpus, "validation")
    assert sorted(train + validation) == sorted(STORIES)
    assert train == [story for story in STORIES if story in set(train)]
    assert 5 <= len(validation) <= 40
    assert corpus.train.dtype == np.uint16 and isinstance(corpus.train, np.memmap)
    assert "corpus.txt" in corpus.description and f"{len(train)} documents" in corpus.description


def test_the_split_does_not_depend_on_the_order_and_keeps_equal_documents_together(tmp_path: Path) -> None:
    first = open_(text_file(tmp_path, [*STORIES, *STORIES[:50]]), tmp_path)
    second = open_(text_file(tmp_path, STORIES[::-1], "reversed.txt"), tmp_path)
    assert set(documents_of(first, "validation")) == set(documents_of(second, "validation"))
    assert not set(documents_of(first, "validation")) & set(documents_of(first, "train"))


def test_all_file_types_give_the_same_tokens(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": story}) + "\n\n" for story in STORIES))
    pq.write_table(pa.table({"id": list(range(200)), "text": STORIES}), tmp_path / "c.parquet")
    digests = {open_(path, tmp_path).digest for path in (text_file(tmp_path), "c.jsonl", tmp_path / "c.parquet")}
    assert len(digests) == 1


def test_a_validation_file_is_used_whole(tmp_path: Path) -> None:
    held_out = text_file(tmp_path, ["A dog ran.", "A bird sang."], "valid.txt")
    corpus = open_(text_file(tmp_path), tmp_path, validation_source=str(held_out))
    assert documents_of(corpus, "validation") == ["A dog ran.", "A bird sang."]
    assert documents_of(corpus, "train") == STORIES


def test_only_the_first_documents_are_used_when_asked(tmp_path: Path) -> None:
    corpus = open_(text_file(tmp_path), tmp_path, max_documents=20)
    assert sorted(documents_of(corpus, "train") + documents_of(corpus, "validation")) == sorted(STORIES[:20])


@pytest.mark.parametrize("documents", [1, 2, 3, 5])
def test_a_tiny_corpus_still_has_both_splits(documents: int, tmp_path: Path) -> None:
    corpus = open_(text_file(tmp_path, STORIES[:documents]), tmp_path)
    assert len(corpus.train) >= 2 and len(corpus.validation) >= 2
    assert len(corpus.documents("train")) >= 1 and len(corpus.documents("validation")) >= 1
    together = np.concatenate((corpus.train, corpus.validation))
    assert len(together) == sum(len(load_tokenizer().encode_ordinary(text)) + 1 for text in STORIES[:documents])
    if documents > 1:
        assert sorted(documents_of(corpus, "train") + documents_of(corpus, "validation")) == sorted(STORIES[:documents])


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "the file is empty"),
        (["", "  \n "], "there is no text in it"),
        (["a"], r"2 tokens for training and 0 for validation"),
    ],
)
def test_a_corpus_that_is_too_small_is_an_error_with_the_token_counts(
    documents: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        open_(text_file(tmp_path, documents), tmp_path)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_the_cache_is_built_once_and_described_by_its_header(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    corpus = open_(path, tmp_path)
    header = json.loads((corpus.parts[0].folder / "header.json").read_text())
    assert header["tokenizer"] == "gpt2" and header["dtype"] == "uint16"
    assert header["splits"]["train"]["count"] == len(corpus.train)
    built = (corpus.parts[0].folder / "train.bin").stat().st_mtime_ns
    os.utime(path, (1, 1))  # the file gets a new modification time but keeps its content
    again = open_(path, tmp_path)
    assert again.digest == corpus.digest
    assert (corpus.parts[0].folder / "train.bin").stat().st_mtime_ns == built


MIXED = [f"Zoë saw {'two ' * n}cats 😀 — naïve №{n}" for n in range(40)]
"""Documents in which many characters have several bytes and some tokens end inside a character."""


def test_the_bytes_of_each_split_are_those_of_its_text(tmp_path: Path) -> None:
    corpus = open_(text_file(tmp_path, MIXED), tmp_path, validation_fraction=0.3)
    for split, found in (("train", corpus.train_bytes), ("validation", corpus.validation_bytes)):
        assert found == sum(len(text.encode()) for text in documents_of(corpus, split)) > 0
    header = json.loads((corpus.parts[0].folder / "header.json").read_text())
    assert header["splits"]["train"]["text_bytes"] == corpus.train_bytes


def test_a_cache_of_an_older_version_opens_and_has_the_same_bytes(tmp_path: Path) -> None:
    path = text_file(tmp_path, MIXED)
    new = open_(path, tmp_path)
    header = json.loads((new.parts[0].folder / "header.json").read_text())
    for entry in header["splits"].values():
        del entry["text_bytes"]
    (new.parts[0].folder / "header.json").write_text(json.dumps(header))
    old = open_(path, tmp_path)
    assert (old.train_bytes, old.validation_bytes) == (new.train_bytes, new.validation_bytes)
    assert old.digest == new.digest


def test_a_changed_source_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    folder = open_(path, tmp_path).parts[0].folder
    text_file(tmp_path, STORIES[:-1])
    with pytest.raises(DataError, match=rf"stale: the source has changed.*Remove {folder} and start again"):
        open_(path, tmp_path)


@pytest.mark.parametrize(
    "name", ["header.json", "train.bin", "train.documents.bin", "validation.bin", "validation.documents.bin"]
)
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_cache_is_an_error_that_names_the_folder(name: str, damage: str, tmp_path: Path) -> None:
    path = text_file(tmp_path)
    folder = open_(path, tmp_path).parts[0].folder
    file = folder / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[:-8])
    else:
        data[0] ^= 0x55
        file.write_bytes(data)
    with pytest.raises(DataError, match=rf"damaged: .*Remove {folder} and start again"):
        open_(path, tmp_path)


def _open_in_process(path: str, data_dir: str, start: Any, results: Any) -> None:
    start.wait()
    corpus = open_corpus(DataConfig(source=path), data_dir=Path(data_dir))
    results.put((corpus.digest, (corpus.parts[0].folder / "train.bin").stat().st_ino))


def test_two_processes_that_build_at_once_share_one_cache(tmp_path: Path) -> None:
    path = text_file(tmp_path, [f"{n} {story}" for n in range(5) for story in STORIES])
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    workers = [
        context.Process(target=_open_in_process, args=(str(path), str(tmp_path), start, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    start.set()
    found = {results.get(timeout=100) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == ["", ".lock"]


def test_files_of_a_killed_builder_are_removed(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    folder = open_(path, tmp_path).parts[0].folder
    abandoned = folder.with_name(f".{folder.name}.0123.tmp")
    folder.rename(abandoned)
    assert open_(path, tmp_path).parts[0].folder == folder
    assert not abandoned.exists()


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not valid JSON"),
        ("bad.jsonl", b'{"body": "a"}\n', r"line 1 has no field 'text' \(it has body\); name the field"),
        ("bad.jsonl", b"[1]\n", "line 1 is a JSON array"),
        ("bad.jsonl", b'{"text": 3}\n', "'text' is a number, expected text"),
        ("bad.txt", b"caf\xe9 au lait", "not UTF-8 text"),
        ("bad.parquet", b"PAR1 no it is not", "not a readable parquet file"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(name: str, content: bytes, finding: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=finding) as caught:
        open_(tmp_path / name, tmp_path)
    assert name in caught.value.message


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"story": STORIES}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"no column 'text' \(it has story; text is in story\)"):
        open_("c.parquet", tmp_path)
    assert documents_of(open_("c.parquet", tmp_path, text_field="story"), "train")


@pytest.mark.parametrize(
    "name", ["absent.txt", "/nowhere/absent.jsonl", "builtin:poems", "./corpus.csv", "poems", "a/b/poems"]
)
def test_a_source_that_does_not_exist_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name.split("/")[-1]):
        open_(name, tmp_path)


def test_an_unreachable_hub_points_to_what_works_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub")

    monkeypatch.setattr(datasets, "get_dataset_split_names", refuse)
    with pytest.raises(DataError, match=r"Couldn't reach the hub.*set data\.source to builtin:stories or a local"):
        open_("roneneldan/TinyStories", tmp_path)


def test_a_hub_data_set_is_fetched_once_with_its_own_validation_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    parts = {"train": STORIES, "validation": ["A dog ran.", "A bird sang."]}
    asked: list[str] = []

    def load(name: str, split: str) -> Any:
        asked.append(f"{name} {split}")
        return datasets.Dataset.from_dict({"text": parts[split]})

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: list(parts))
    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = open_("someone/stories", tmp_path)
    assert documents_of(corpus, "train") == STORIES
    assert documents_of(corpus, "validation") == parts["validation"]
    asked.clear()
    assert open_("someone/stories", tmp_path).digest == corpus.digest
    assert asked == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the memory limit")
def test_a_hub_data_set_that_decodes_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = [3 * 2**30, 5 * 2**30]

    def load(name: str, split: str) -> Any:
        for size in asked:
            bytearray(size)  # an array counts toward the memory limit even if none of its pages is used
        return datasets.Dataset.from_dict({"text": STORIES})

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"fetching the dataset takes more than 4 GiB .*choose another dataset"):
        open_("someone/bomb", tmp_path)
    asked.pop()
    assert documents_of(open_("someone/bomb", tmp_path), "train")
    bytearray(5 * 2**30)  # must not raise MemoryError, because the memory limit applies only while a corpus is opened


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    path = text_file(tmp_path)
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        open_(path, tmp_path / "blocked")


def test_progress_is_reported_in_documents(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    config = DataConfig(source="builtin:stories", max_documents=1100)
    corpus = open_corpus(config, data_dir=tmp_path, progress=lambda *event: seen.append(event))
    documents = [event for event in seen if event[0] != "wait"]
    assert documents == [("tokenise", 512, 1100), ("tokenise", 1024, 1100), ("tokenise", 1100, 1100)]
    assert corpus.description.startswith("builtin:stories (written by a program): ")
