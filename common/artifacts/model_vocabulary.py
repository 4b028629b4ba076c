"""Reads from a manifest which vocabulary a language model has, without torch and without the vocabulary itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from common.config.tokenizers import GPT2, GPT2_SIZE


class StoredVocabulary(NamedTuple):
    """Name (a value of `data.tokenizer`) and number of entries of a vocabulary."""

    name: str
    size: int


def stored_vocabulary(path: Path) -> StoredVocabulary:
    """Return the vocabulary of the model in `path`, a model file or a checkpoint folder.

    It is GPT-2's if the manifest names no vocabulary, or if there is no readable manifest; the trainer reports a
    damaged one.
    """
    folder = path.is_dir()
    file = path / "manifest.json" if folder else path.with_name(f"{path.name}.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        described = (content["meta"] if folder else content)["vocabulary"]
        return StoredVocabulary(str(described["name"]), int(described["size"]))
    except (OSError, ValueError, KeyError, TypeError):
        return StoredVocabulary(GPT2, GPT2_SIZE)
