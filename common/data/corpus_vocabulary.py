"""Finds the vocabulary that is trained on one corpus or several, and trains it if there is none in the cache.

The result is kept in `<data_dir>/cache`, in a folder with `header.json` and `tokenizer.json`. The name of the folder
contains a hash of the settings and of the content of the corpus, so a changed corpus gives another vocabulary. It is
only a cache: an experiment stores its vocabulary itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.config.data import CorpusConfig
from common.data.held_out import training_documents
from common.data.source import DocumentSource, first_documents, training_source, validation_source
from common.data.token_cache import HEADER, cache_lock, writing_cache
from common.data.vocabulary import VOCABULARY_FILE, Vocabulary, read_vocabulary
from common.data.vocabulary_training import alternating, train_vocabulary
from common.datasets import is_hub_name
from common.errors import DataError
from common.files import flush, write_json, write_text

Progress = Callable[[str, int, int | None], None]
"""A progress callback: (activity, number of finished documents, number of all documents or None if unknown).

The activity "fetch" is reported once before a call of Hugging Face's library, which may take hours without further
reports, and so is "merge" before the merges of a vocabulary are computed, which may take a minute. "vocabulary" (the
vocabulary is trained), "wait" (another process builds the cache, or files are hashed) and "tokenise" are reported
frequently.
"""
VERSION = 2
"""Version of the training; another version trains again."""


def corpus_vocabulary(corpora: Sequence[CorpusConfig], size: int, data_dir: Path, report: Progress) -> Vocabulary:
    """Return the vocabulary of `size` entries that is trained on the training documents of all `corpora`.

    Held-out text is not used, so that bits per byte on it are those of unseen text. The weights and the order of the
    corpora do not matter: if they are too long to be read completely, about as much is read of each. `report` is called
    with "vocabulary" for every few documents, and with "merge" once before the merges are computed. Raises DataError if
    a source cannot be read or has too little text, StorageError if the result cannot be stored.
    """
    identity: dict[str, Any] = {"version": VERSION, "data": [config.model_dump(mode="json") for config in corpora]}

    def heartbeat() -> None:
        report("wait", 0, None)

    # The digest of a Hugging Face dataset needs the network, so only its name counts, as for its token cache.
    identity["sources"] = [
        source.digest(heartbeat)
        for config in corpora
        if not is_hub_name(config.source)
        for source in _sources(config, data_dir)
    ]
    folder = _folder(identity, data_dir)
    if (found := _cached(folder, size)) is not None:
        return found
    if any(is_hub_name(config.source) for config in corpora):
        report("fetch", 0, None)
    with writing_cache(folder), cache_lock(folder, heartbeat):
        if (found := _cached(folder, size)) is not None:
            return found
        total = _total(corpora, data_dir)
        vocabulary = train_vocabulary(
            alternating([_training_documents(config, data_dir) for config in corpora]),
            size,
            progress=lambda done: report("vocabulary", done, total),
            merging=lambda: report("merge", 0, None),
        )
        _store(vocabulary, folder, {**identity, "vocabulary": vocabulary.describe()})
    return vocabulary


def _sources(config: CorpusConfig, data_dir: Path) -> list[DocumentSource]:
    found = training_source(config, data_dir), validation_source(config, data_dir)
    return [source for source in found if source is not None]


def _total(corpora: Sequence[CorpusConfig], data_dir: Path) -> int | None:
    """Return the number of documents, or None if it is not known without reading them."""
    counts = []
    for config in corpora:
        count = training_source(config, data_dir).count()
        if count is None:
            return None
        counts.append(count if config.max_documents is None else min(count, config.max_documents))
    return sum(counts)


def _folder(identity: dict[str, Any], data_dir: Path) -> Path:
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return data_dir / "cache" / f"vocabulary-{key}"


def _cached(folder: Path, size: int) -> Vocabulary | None:
    """Return the vocabulary in `folder`; None if there is none, or it is damaged and has to be trained again."""
    try:
        found = read_vocabulary(folder / VOCABULARY_FILE)
    except DataError:
        return None
    return found if found.size == size else None


def _training_documents(config: CorpusConfig, data_dir: Path) -> Iterator[str]:
    train, *held_out = _sources(config, data_dir)

    def read() -> Iterator[str]:
        return first_documents(train, config.max_documents)

    return read() if held_out else training_documents(read, config.validation_fraction)


def _store(vocabulary: Vocabulary, folder: Path, header: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir()
        write_text(temporary / VOCABULARY_FILE, vocabulary.to_json())
        write_json(temporary / HEADER, header)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
