"""Opens the corpora of a training: the tokens of both splits, the starts of the documents and a description.

The first call builds a token cache for each corpus. The validation split comes from the source if it has one. Otherwise
documents are held out by the hash of their text, so equal documents of a corpus are always in the same split.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from common.config.data import CorpusConfig, DataConfig
from common.config.tokenizers import trained_size
from common.data.batch_encoder import BatchEncoder, Ids
from common.data.corpus_vocabulary import Progress, corpus_vocabulary
from common.data.held_out import TRAINING_TAIL, is_held_out
from common.data.joined_tokens import JoinedTokens, TokenStream
from common.data.source import DocumentSource, first_documents, training_source, validation_source
from common.data.token_cache import Offsets, Split, SplitWriter, TokenCache, move_tail, open_cache
from common.data.vocabulary import Vocabulary, gpt2_vocabulary
from common.datasets import is_file_name, is_hub_name
from common.errors import DataError

SplitName = Literal["train", "validation"]
BATCH_DOCUMENTS = 8192
"""Largest number of documents that are tokenised as one batch."""
BATCH_CHARACTERS = 1 << 22
"""Number of characters after which a batch ends even if it has fewer than BATCH_DOCUMENTS documents. Two batches are in
memory at a time."""
REPORT_DOCUMENTS = 512
"""Number of documents after which the progress is reported."""


@dataclass(frozen=True)
class CorpusPart:
    """One of the corpora of a training: memory-mapped uint16 tokens; every document ends with `<|endoftext|>`."""

    name: str
    """Short name for metrics, different for each part: the source, or only the file name of a path."""
    share: float
    """Share of the training tokens that come from this corpus, between 0 and 1."""
    train: Split
    validation: Split
    folder: Path
    """Folder of the token cache."""


@dataclass(frozen=True)
class Corpus:
    """The text of a training, from one corpus or several."""

    parts: tuple[CorpusPart, ...]
    description: str
    """Name and size of the corpora, for messages to users."""
    digest: str
    """SHA-256 over the tokens of both splits of all corpora; equal digests mean equal data."""
    vocabulary: Vocabulary = field(default_factory=gpt2_vocabulary)
    """The vocabulary of the tokens."""

    @cached_property
    def train(self) -> TokenStream:
        """Return the training tokens of all corpora, one after the other."""
        return self.tokens("train")

    @cached_property
    def validation(self) -> TokenStream:
        """Return the validation tokens of all corpora, one after the other."""
        return self.tokens("validation")

    @property
    def train_bytes(self) -> int:
        """Return the number of UTF-8 bytes of the training text."""
        return sum(part.train.text_bytes for part in self.parts)

    @property
    def train_bytes_per_token(self) -> float:
        """Return the mean number of UTF-8 bytes of a token that the training reads, with the shares of the corpora."""
        return sum(part.share * part.train.text_bytes / len(part.train.tokens) for part in self.parts)

    @property
    def validation_bytes(self) -> int:
        """Return the number of UTF-8 bytes of the validation text."""
        return sum(part.validation.text_bytes for part in self.parts)

    def tokens(self, split: SplitName) -> TokenStream:
        """Return the token stream of a split: all corpora, one after the other, without their weights."""
        streams = [each.tokens for each in self._splits(split)]
        return streams[0] if len(streams) == 1 else JoinedTokens(streams)

    def documents(self, split: SplitName) -> Offsets:
        """Return the offset of the first token of each document in `tokens(split)`."""
        splits = self._splits(split)
        if len(splits) == 1:
            return splits[0].documents
        sizes = np.cumsum([0] + [len(each.tokens) for each in splits])
        return np.concatenate([each.documents + start for each, start in zip(splits, sizes[:-1], strict=True)])

    def _splits(self, split: SplitName) -> list[Split]:
        return [part.train if split == "train" else part.validation for part in self.parts]


def open_corpus(
    config: DataConfig, *, data_dir: Path, progress: Progress | None = None, vocabulary: Vocabulary | None = None
) -> Corpus:
    """Open the corpora of a configuration, and build those token caches in `data_dir`/cache that do not exist.

    The tokens are those of `vocabulary`, whatever `config.tokenizer` names. With None, they are those of the vocabulary
    that it names, which is trained if necessary. Two processes may call this at the same time. Raises DataError if a
    source cannot be read or is too small, or if a cache is stale or damaged; StorageError if a cache cannot be written.
    """
    report = progress or _ignore_progress
    if vocabulary is None:
        size = trained_size(config.tokenizer)
        vocabulary = gpt2_vocabulary() if size is None else corpus_vocabulary(config.corpora(), size, data_dir, report)
    config = config.model_copy(update={"tokenizer": vocabulary.name})
    caches = [_open_cache(part, vocabulary, data_dir, report) for part in config.corpora()]
    names = _short_names([part.source for part in config.corpora()])
    parts = tuple(
        CorpusPart(name, share, cache.train, cache.validation, cache.folder)
        for name, share, cache in zip(names, config.shares(), caches, strict=True)
    )
    digests = [_digest(cache) for cache in caches]
    several = len(parts) > 1
    return Corpus(
        parts,
        description=" | ".join(
            _describe(each.source, part, with_share=several) for each, part in zip(config.corpora(), parts, strict=True)
        ),
        digest=hashlib.sha256("".join(digests).encode()).hexdigest() if several else digests[0],
        vocabulary=vocabulary,
    )


def _open_cache(config: CorpusConfig, vocabulary: Vocabulary, data_dir: Path, report: Progress) -> TokenCache:
    folder = data_dir / "cache" / _cache_name(config, vocabulary)
    expected = _expected(config, vocabulary)

    def heartbeat() -> None:
        report("wait", 0, None)

    def announce_fetch() -> None:
        if is_hub_name(config.source):
            report("fetch", 0, None)

    if folder.exists() and is_hub_name(config.source):
        # A Hugging Face dataset is not requested again, because the cache already holds its tokens.
        return open_cache(folder, expected, dict, str, lambda _: None, vocabulary, heartbeat)
    announce_fetch()
    train = training_source(config, data_dir)
    held_out = validation_source(config, data_dir)
    sources = [source for source in (train, held_out) if source is not None]

    def digest() -> str:
        announce_fetch()
        return "+".join(source.digest(heartbeat) for source in sources)

    def build(temporary: Path) -> None:
        announce_fetch()
        _build(temporary, config, vocabulary, train, held_out, report)

    return open_cache(
        folder,
        expected,
        lambda: {str(number): source.stamp() for number, source in enumerate(sources)},
        digest,
        build,
        vocabulary,
        heartbeat,
    )


def _build(
    folder: Path,
    config: CorpusConfig,
    vocabulary: Vocabulary,
    train: DocumentSource,
    held_out: DocumentSource | None,
    progress: Progress,
) -> None:
    writers = {name: SplitWriter(folder, name, vocabulary.end_of_text_id) for name in ("train", "validation")}
    done = 0
    try:
        for part in (train, held_out):
            if part is None:
                continue
            total = part.count()
            if total is not None and config.max_documents is not None:
                total = min(total, config.max_documents)
            done = 0
            for texts, tokens in _tokenised(first_documents(part, config.max_documents), vocabulary):
                for text, document in zip(texts, tokens, strict=True):
                    if held_out is None:
                        split = "validation" if is_held_out(text, config.validation_fraction) else "train"
                    else:
                        split = "train" if part is train else "validation"
                    writers[split].add(document)
                    done += 1
                    if done % REPORT_DOCUMENTS == 0:
                        progress("tokenise", done, total)
                if done % REPORT_DOCUMENTS:
                    progress("tokenise", done, total)
    finally:
        for writer in writers.values():
            writer.close()
    counts = {name: writer.tokens for name, writer in writers.items()}
    if held_out is None:
        # Hashing may leave a split of a small corpus empty. In that case the end of the other split is moved to it.
        for source, target in (("train", "validation"), ("validation", "train")):
            if counts[target] == 0 and counts[source] >= 4:
                fraction = config.validation_fraction if target == "validation" else TRAINING_TAIL
                move_tail(folder, source, target, fraction, None if vocabulary.is_gpt2 else vocabulary.byte_lengths)
                return
    if min(counts.values()) < 2:
        raise DataError(
            f"{config.source}: {counts['train']} tokens for training and {counts['validation']} for validation; "
            "both need at least 2. Use a larger corpus"
        )


def _tokenised(documents: Iterator[str], vocabulary: Vocabulary) -> Iterator[tuple[list[str], list[Ids]]]:
    """Yield batches of documents with their ids. While the caller stores a batch, the next one is encoded."""
    encoder = BatchEncoder(vocabulary)
    waiting: tuple[list[str], Future[list[Ids]]] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        while batch := _batch(documents):
            following = batch, pool.submit(encoder.encode, batch)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _batch(documents: Iterator[str]) -> list[str]:
    batch, size = [], 0
    for text in islice(documents, BATCH_DOCUMENTS):
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            break
    return batch


def _expected(config: CorpusConfig, vocabulary: Vocabulary) -> dict[str, object]:
    return {"tokenizer": config.tokenizer, "data": config.model_dump(mode="json"), **_digest_of_trained(vocabulary)}


def _digest_of_trained(vocabulary: Vocabulary) -> dict[str, str]:
    """Return the part of a cache's key that only a trained vocabulary has, so that other caches keep their names."""
    return {} if vocabulary.is_gpt2 else {"vocabulary": vocabulary.digest}


def _cache_name(config: CorpusConfig, vocabulary: Vocabulary) -> str:
    identity = {**config.model_dump(mode="json"), **_digest_of_trained(vocabulary)}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(config.source).name).strip("-")[:40] or "corpus"
    return f"{slug}-{key}"


def _digest(cache: TokenCache) -> str:
    hashes = "".join(cache.header["splits"][name]["sha256"] for name in ("train", "validation"))
    return hashlib.sha256(hashes.encode()).hexdigest()


def _short_names(sources: Sequence[str]) -> list[str]:
    names: list[str] = []
    for source in sources:
        name = Path(source).name if is_file_name(source) else source
        names.append(f"{name} ({names.count(name) + 1})" if name in names else name)
    return names


def _describe(source: str, part: CorpusPart, *, with_share: bool) -> str:
    def size(split: Split) -> str:
        return f"{len(split.documents):,} documents, {len(split.tokens):,} tokens"

    name = source if not source.startswith("builtin:") else f"{source} (written by a program)"
    share = f"{part.share:.1%} of the training, " if with_share else ""
    return f"{name}: {share}{size(part.train)} for training; {size(part.validation)} for validation"


def _ignore_progress(_phase: str, _done: int, _total: int | None) -> None:
    return None
