"""Describes the vocabularies of stored models without torch, from the manifests of checkpoints and `tokenizer.json`.

A manifest without a description means GPT-2's vocabulary. `common.checkpoint.vocabulary_file` writes the descriptions,
and `common.data.vocabulary` is the vocabulary itself, which encodes text.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.config.tokenizers import (
    BYTES,
    GPT2,
    GPT2_DIGEST,
    GPT2_SIZE,
    MOST_FILE_BYTES,
    VOCABULARY_KEY,
    symbol_of_byte,
    trained_name,
)
from common.errors import StorageError

SHOWN = 24
"""Number of entries of each list in `VocabularyFacts`."""


@dataclass(frozen=True)
class VocabularyDescription:
    """Name (`gpt2` or, for example, `train:4096`), number of entries, and digest of a vocabulary."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class VocabularyFacts:
    """Some entries of a trained vocabulary. One that is not valid text by itself is written as `bytes:\\xe2\\x80`."""

    description: VocabularyDescription
    words: tuple[str, ...]
    """The first entries of at least four bytes that the training found; they are the most frequent ones."""
    longest: tuple[str, ...]
    """The longest entries, the longest first."""
    mean_bytes: float
    """Mean length of the entries in bytes, without `<|endoftext|>`."""


GPT2_DESCRIPTION = VocabularyDescription(GPT2, GPT2_SIZE, GPT2_DIGEST)


def checkpoint_vocabulary(path: Path) -> VocabularyDescription | None:
    """Return the vocabulary of the language model in `path`, a model file or a checkpoint folder.

    Returns None if the manifest is missing, although Tidal wrote the model, or if it is damaged.
    """
    manifest = path / "manifest.json" if path.is_dir() else path.with_name(f"{path.name}.json")
    try:
        changed_at = manifest.stat().st_mtime_ns
    except OSError:
        from_the_original_project = path.suffix == ".pth" and path.is_file() and not manifest.exists()
        return GPT2_DESCRIPTION if from_the_original_project else None
    return _described(manifest, changed_at)


def vocabulary_facts(file: Path) -> VocabularyFacts | None:
    """Return the facts of the vocabulary in a `tokenizer.json`, or None if there is no such file.

    Raises StorageError if the file is damaged.
    """
    try:
        state = file.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(file, error) from error
    return _facts(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _described(manifest: Path, _changed_at: int) -> VocabularyDescription | None:
    try:
        content = json.loads(manifest.read_bytes())
        described = (content.get("meta") or content).get(VOCABULARY_KEY)
        if described is None:
            return GPT2_DESCRIPTION
        return VocabularyDescription(str(described["name"]), int(described["size"]), str(described["digest"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


@lru_cache(maxsize=32)
def _facts(file: Path, _changed_at: int, size_bytes: int) -> VocabularyFacts:
    if size_bytes > MOST_FILE_BYTES:
        raise _damaged(file, "the file is too large for a vocabulary")
    try:
        content = file.read_bytes()
        merges = [_joined(merge) for merge in json.loads(content)["model"]["merges"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(file, error) from error
    size = BYTES + len(merges) + 1
    # The file is the canonical definition, so its hash is the digest.
    description = VocabularyDescription(trained_name(size), size, hashlib.sha256(content).hexdigest())
    longest = sorted(merges, key=len, reverse=True)[:SHOWN]
    words = [merge for merge in merges if len(merge) > 3][:SHOWN]
    lengths = BYTES + sum(map(len, merges))
    return VocabularyFacts(description, tuple(map(_text, words)), tuple(map(_text, longest)), lengths / (size - 1))


def _joined(merge: Any) -> bytes:
    """Return the bytes of the entry that a merge gives; the merge is "left right" in GPT-2's notation of bytes."""
    symbols = merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)
    byte_of = _byte_of_symbol()
    return bytes(byte_of[symbol] for symbol in symbols)


@lru_cache(maxsize=1)
def _byte_of_symbol() -> dict[str, int]:
    return {symbol: byte for byte, symbol in symbol_of_byte().items()}


def _text(entry: bytes) -> str:
    try:
        return entry.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry)


def _damaged(file: Path, reason: object) -> StorageError:
    return StorageError(f"{file.parent.name}/{file.name} cannot be read as a vocabulary: {reason}")
