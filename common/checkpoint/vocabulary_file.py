"""Stores the vocabulary of a model next to its weights, and finds it again.

A manifest has the entry "vocabulary": {"name", "size", "digest"}, and the vocabulary itself is the file
`tokenizer.json` in the same folder: that of the checkpoint, or that of the experiment for the final model. Manifests
without the entry, among them all of older versions, mean GPT-2's vocabulary, which is never stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.tokenizers import GPT2_SIZE, MOST_FILE_BYTES, VOCABULARY_KEY
from common.data.vocabulary import VOCABULARY_FILE, Vocabulary, gpt2_vocabulary, read_vocabulary
from common.errors import CheckpointError, DataError
from common.files import write_atomic, write_text

META_KEY = VOCABULARY_KEY


def vocabulary_meta(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the entry of a manifest that describes the vocabulary; no entry for GPT-2's."""
    return {} if vocabulary.is_gpt2 else {META_KEY: vocabulary.describe()}


def vocabulary_of(meta: Mapping[str, Any], folder: Path) -> Vocabulary:
    """Return the vocabulary that the manifest `meta` of a model in `folder` describes.

    Raises CheckpointError if the file in `folder` is missing, damaged, or another vocabulary.
    """
    described = meta.get(META_KEY)
    if described is None:
        return gpt2_vocabulary()
    file = folder / VOCABULARY_FILE
    try:
        name, digest = str(described["name"]), str(described["digest"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: the manifest does not describe its vocabulary ({error})") from error
    if digest == gpt2_vocabulary().digest:
        return gpt2_vocabulary()
    try:
        found = read_vocabulary(file)
    except DataError as error:
        raise CheckpointError(
            f"{error.message}; the model needs its own vocabulary {name} (digest {digest[:12]})"
        ) from error
    if found.digest != digest:
        raise CheckpointError(
            f"{file}: has the vocabulary {found}, but the model was trained with {name} (digest {digest[:12]}); "
            "copy the file of the model's own experiment"
        )
    return found


def vocabulary_without_manifest(folder: Path, size: int) -> Vocabulary:
    """Return the vocabulary of a model of `size` entries that has no manifest of Tidal.

    transformers drops the manifest when it saves an exported model again, and writes the settings of `tokenizer.json`
    in its own way. So only its entries are compared. If there is no such file, or a model has as many entries as
    GPT-2's vocabulary and the file has others, it is GPT-2's. Raises CheckpointError if a smaller model has a file that
    is not its vocabulary.
    """
    file = folder / VOCABULARY_FILE
    found = _entries_of(file) if file.is_file() else None
    if found is not None and found.size == size:
        return found
    if file.is_file() and size < GPT2_SIZE:
        raise CheckpointError(
            f"{file}: is not a byte-level BPE of {size} entries, which the model has; copy the file that was exported "
            "with the model"
        )
    return gpt2_vocabulary()


def _entries_of(file: Path) -> Vocabulary | None:
    """Return the vocabulary of a `tokenizer.json`, or None if its entries are not those of its merges."""
    try:
        if file.stat().st_size > MOST_FILE_BYTES:
            return None
        found = json.loads(file.read_bytes())["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in found["merges"]]
        vocabulary = Vocabulary.from_merges(merges)
        same = json.loads(vocabulary.to_json())["model"]["vocab"] == found["vocab"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return vocabulary if same else None


def save_vocabulary(vocabulary: Vocabulary, folder: Path, *, replace: bool = False) -> None:
    """Write `tokenizer.json` to `folder`, unless it is there already or the vocabulary is GPT-2's.

    With `replace`, a file of another vocabulary is overwritten, or removed if the vocabulary is GPT-2's. Otherwise,
    raises CheckpointError if the folder has another or a damaged one, and StorageError if the write fails.
    """
    file = folder / VOCABULARY_FILE
    if vocabulary.is_gpt2:
        if replace:
            file.unlink(missing_ok=True)
        return
    if file.exists() and not replace:
        try:
            found = read_vocabulary(file)
        except DataError as error:
            raise CheckpointError(f"{error.message}; save the model to another folder, or remove the file") from error
        if found.digest != vocabulary.digest:
            raise CheckpointError(
                f"{file}: has the vocabulary {found}, but the model has {vocabulary}; save it to another folder"
            )
        return
    write_atomic(file, lambda temporary: write_text(temporary, vocabulary.to_json()))
