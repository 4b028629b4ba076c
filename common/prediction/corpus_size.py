"""Finds the number of tokens of a corpus without tokenising it.

A corpus that was used before has a token cache, whose header holds the exact numbers. Otherwise the numbers are
estimated from the size of the text, if that is known.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from common.config.data import CorpusConfig, DataConfig
from common.config.tokenizers import trained_size
from common.datasets import BUILTIN_STORIES, DatasetStore, is_dataset_name, is_file_name
from common.errors import TidalError
from common.prediction.plan import CorpusSize

BYTES_PER_TOKEN = 4
"""Bytes of English text per token of GPT-2's vocabulary, for token caches that do not contain the size of the text."""
BUILTIN_BYTES = 15_000_000
"""Approximate size of the text of `builtin:stories` (`common.data.stories`)."""
_PLAIN = (".txt", ".jsonl")
"""Suffixes of files whose size is about the size of their text."""


def find_corpus_size(
    config: DataConfig, data_dir: Path, *, bytes_per_token: float | None, builtin_bytes: int | None
) -> CorpusSize | None:
    """Return the size of the corpora; None if it is unknown before they are opened for the first time.

    `bytes_per_token` and `builtin_bytes` come from a calibration; without them, only the size of a tokenised corpus is
    known.
    """
    found = [
        _tokenised(corpus, data_dir) or _estimated(corpus, data_dir, bytes_per_token, builtin_bytes)
        for corpus in config.corpora()
    ]
    parts = tuple(size for size in found if size is not None)
    if len(parts) < len(found):
        return None
    if len(parts) == 1:
        return parts[0]
    return CorpusSize(
        sum(part.train_tokens for part in parts),
        sum(part.validation_tokens for part in parts),
        text_bytes=sum(part.text_bytes for part in parts),
        estimated=any(part.estimated for part in parts),
        parts=parts,
    )


def find_training_bytes(config: DataConfig, data_dir: Path) -> int | None:
    """Return the approximate size of the training text in bytes; None if it is unknown before the text is read."""
    sizes = [_training_bytes(corpus, data_dir) for corpus in config.corpora()]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _training_bytes(config: CorpusConfig, data_dir: Path) -> int | None:
    splits = _cached_splits(config, data_dir)
    stored = None if splits is None else splits["train"].get("text_bytes")
    if isinstance(stored, int):
        return stored
    if splits is not None:
        return round(int(splits["train"]["count"]) * _bytes_per_token(config.tokenizer, BYTES_PER_TOKEN))
    size = _text_bytes(config.source, data_dir, BUILTIN_BYTES)
    if size is None or config.max_documents is not None:
        return None
    return size if config.validation_source is not None else round(size * (1.0 - config.validation_fraction))


def _tokenised(config: CorpusConfig, data_dir: Path) -> CorpusSize | None:
    splits = _cached_splits(config, data_dir)
    if splits is None:
        return None
    return CorpusSize(int(splits["train"]["count"]), int(splits["validation"]["count"]))


def _cached_splits(config: CorpusConfig, data_dir: Path) -> dict[str, Any] | None:
    """Return the description of both splits in the header of the corpus's token cache; None without a cache."""
    wanted = config.model_dump(mode="json")
    for path in sorted((data_dir / "cache").glob("[!.]*/header.json")):
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
            if header["data"] == wanted:
                splits: dict[str, Any] = header["splits"]
                _ = [int(splits[name]["count"]) for name in ("train", "validation")]
                return splits
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the trainer reports a damaged cache
    return None


def _estimated(
    config: CorpusConfig, data_dir: Path, bytes_per_token: float | None, builtin_bytes: int | None
) -> CorpusSize | None:
    size = _text_bytes(config.source, data_dir, builtin_bytes)
    # Without the number of documents, `max_documents` is an unknown share of the text.
    if size is None or bytes_per_token is None or config.max_documents is not None:
        return None
    bytes_per_token = _bytes_per_token(config.tokenizer, bytes_per_token)
    tokens = round(size / bytes_per_token)
    if config.validation_source is None:
        held_out = round(tokens * config.validation_fraction)
        return CorpusSize(tokens - held_out, held_out, text_bytes=size, estimated=True)
    other = _text_bytes(config.validation_source, data_dir, builtin_bytes)
    if other is None:
        return None
    return CorpusSize(tokens, round(other / bytes_per_token), text_bytes=size + other, estimated=True)


def _bytes_per_token(tokenizer: str, of_gpt2: float) -> float:
    """Return the estimated bytes per token with a vocabulary of N entries, from those with GPT-2's.

    The ratio of both is about √(log₂(N / 256) / 4). Measured ratios for N = 512, 1024, 2048, 4096 (the formula gives
    0.50, 0.71, 0.87, 1.00): 0.58, 0.77, 0.90, 0.98 for TinyStories, 0.54, 0.71, 0.88, 1.02 for Tidal's guides, and
    0.68, 0.88, 1.06, 1.23 for its source code, of which GPT-2's vocabulary has seen little.
    """
    size = trained_size(tokenizer)
    return of_gpt2 if size is None else max(1.0, of_gpt2 * math.sqrt(math.log2(size / 256) / 4))


def _text_bytes(source: str, data_dir: Path, builtin_bytes: int | None) -> int | None:
    """Return the size of the text in bytes; None if it is unknown."""
    if source == BUILTIN_STORIES:
        return builtin_bytes
    try:
        if is_dataset_name(source):
            manifest = DatasetStore(data_dir).find(source)
            return manifest.size_bytes if f".{manifest.format}" in _PLAIN else None
        path = data_dir / source
        return path.stat().st_size if is_file_name(source) and path.suffix in _PLAIN else None
    except (OSError, ValueError, TidalError):
        return None
