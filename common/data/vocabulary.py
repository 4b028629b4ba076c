"""The vocabulary of a model: which bytes each token id stands for, and how text becomes token ids.

    vocabulary = gpt2_vocabulary()                       # GPT-2's 50,257 entries
    vocabulary = read_vocabulary(folder / "tokenizer.json")     # a vocabulary that was trained on a corpus
    vocabulary.encoding.encode("Once upon a time")       # the tiktoken.Encoding that every consumer uses

Both kinds are byte-level BPE (Sennrich et al. 2016, applied to bytes as in GPT-2) with the same layout: ids 0 to 255
are the bytes in GPT-2's order, id 256 + i is the result of merge i, and the last id is `<|endoftext|>`. So the list of
merges defines a vocabulary completely. It is stored in the format of Hugging Face's library `tokenizers`, which
transformers reads. `common.data.vocabulary_training` trains a vocabulary; `common.checkpoint.load_vocabulary` finds
that of a model.

tiktoken and `tokenizers` give the same ids, although their rules differ. tiktoken merges the neighbours whose
concatenation is the entry with the lowest id; `tokenizers` merges the neighbours that are the two parts of the first
merge in the list. Since id 256 + i belongs to merge i, both orders are equal. The rules could differ only where two
neighbours x, y form an entry t = xy whose merge has other parts p, q. This does not happen if the merges come from a
training. When the training added t, its bytes had become p, q, without a merge across their borders; merges of lower
rank depend only on the bytes inside these borders, so they turn the bytes of t into p, q in every text, and merge t
follows. `tests/unit/common/data/test_vocabulary.py` compares both on real and odd text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from common.config.tokenizers import BYTES as BYTES
from common.config.tokenizers import (
    GPT2,
    GPT2_SIZE,
    LARGEST_SIZE,
    MOST_FILE_BYTES,
    SMALLEST_SIZE,
    symbol_of_byte,
    trained_name,
)
from common.config.tokenizers import GPT2_DIGEST as GPT2_DIGEST
from common.config.tokenizers import VOCABULARY_FILE as VOCABULARY_FILE
from common.data.gpt2_files import gpt2_merges, load_gpt2_encoding
from common.datasets.reading import END_OF_TEXT
from common.errors import DataError


@dataclass(frozen=True)
class VocabularyLabel:
    """Name and digest of a vocabulary, as a controller stores them for the vocabulary it was trained with."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} (digest {self.digest[:12]})"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A byte-level BPE vocabulary. Two vocabularies are equal if their digests are equal.

    Nothing is read or built before it is used: for GPT-2's vocabulary, name, size and digest are known without its
    files.
    """

    name: str
    """The value of `data.tokenizer` that gives this vocabulary: `gpt2` or, for example, `train:4096`."""
    size: int
    """V, the number of entries with `<|endoftext|>`."""
    digest: str
    """SHA-256 of the canonical definition, the result of `to_json` in UTF-8."""
    _read_merges: Callable[[], Sequence[str]] = field(repr=False)

    @classmethod
    def from_merges(cls, merges: Sequence[str]) -> Self:
        """Return the vocabulary with these merges in order of rank.

        A merge is its two parts, separated by a space, in GPT-2's notation of bytes (`Ġ` is a space). Raises ValueError
        if a part is no entry, if a merge gives an entry a second time, or if there are too many merges.
        """
        size = BYTES + len(merges) + 1
        if size > LARGEST_SIZE:
            raise ValueError(f"{size} entries are more than the {LARGEST_SIZE} that a vocabulary may have")
        entries = set(_byte_symbols())
        for merge in merges:
            parts = merge.split(" ")
            if len(parts) != 2 or not entries.issuperset(parts) or "".join(parts) in entries:
                raise ValueError(f"merge {merge!r} does not join two earlier entries to a new one")
            entries.add("".join(parts))
        merges = tuple(merges)
        digest = hashlib.sha256(_to_json(merges).encode()).hexdigest()
        if digest == GPT2_DIGEST:
            return cls(GPT2, size, digest, lambda: merges)
        return cls(trained_name(size), size, digest, lambda: merges)

    @classmethod
    def from_json(cls, content: str | bytes, where: str) -> Self:
        """Return the vocabulary that `to_json` wrote. `where` names the source in errors.

        Raises DataError if the content is not a vocabulary of this form.
        """
        try:
            definition = json.loads(content)
            merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in definition["model"]["merges"]]
            vocabulary = cls.from_merges(merges)
            same = json.loads(vocabulary.to_json()) == {
                **definition,
                "model": {**definition["model"], "merges": merges},
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{where}: not a vocabulary of Tidal ({error}); copy the file again") from error
        if not same:
            raise DataError(
                f"{where}: not a vocabulary of Tidal, because it has other settings or other ids than its merges give; "
                "copy the file again"
            )
        return vocabulary

    @property
    def label(self) -> VocabularyLabel:
        """The name and the digest."""
        return VocabularyLabel(self.name, self.digest)

    @property
    def is_gpt2(self) -> bool:
        """Whether this is GPT-2's vocabulary."""
        return self.digest == GPT2_DIGEST

    @property
    def end_of_text_id(self) -> int:
        """The id of `<|endoftext|>`, which is the last one."""
        return self.size - 1

    @cached_property
    def merges(self) -> tuple[str, ...]:
        """The merges in order of rank, in GPT-2's notation of bytes. Raises DataError if GPT-2's files are missing."""
        return tuple(self._read_merges())

    @cached_property
    def encoding(self) -> tiktoken.Encoding:
        """The encoding of tiktoken with these ids. Raises DataError if GPT-2's files are missing or altered."""
        if self.is_gpt2:
            return load_gpt2_encoding()
        value = {symbol: bytes([byte]) for byte, symbol in symbol_of_byte().items()}
        ranks = {value[symbol]: rank for rank, symbol in enumerate(_byte_symbols())}
        for rank, merge in enumerate(self.merges, start=BYTES):
            left, right = merge.split(" ")
            value[left + right] = value[left] + value[right]
            ranks[value[left + right]] = rank
        return tiktoken.Encoding(
            self.name,
            pat_str=r50k_pat_str,
            mergeable_ranks=ranks,
            special_tokens={END_OF_TEXT: self.end_of_text_id},
            explicit_n_vocab=self.size,
        )

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.uint16]:
        """The number of bytes of each token (V,). `<|endoftext|>` separates documents and counts as 0 bytes."""
        decoded = (self.encoding.decode_single_token_bytes(token) for token in range(self.size - 1))
        lengths = np.array([*map(len, decoded), 0], np.uint16)
        lengths.flags.writeable = False
        return lengths

    def to_json(self) -> str:
        """Return the definition as the `tokenizer.json` of Hugging Face, always the same text."""
        return _to_json(self.merges)

    def describe(self) -> dict[str, Any]:
        """Return name, size and digest, as manifests of models and policies store them."""
        return {"name": self.name, "size": self.size, "digest": self.digest}

    def __str__(self) -> str:
        return str(self.label)

    def __deepcopy__(self, _: object) -> Self:
        return self  # it never changes, and a copy of a model shares it


@lru_cache(maxsize=1)
def gpt2_vocabulary() -> Vocabulary:
    """Return GPT-2's vocabulary. Its files are read when its merges or its encoding are used for the first time."""
    return Vocabulary(GPT2, GPT2_SIZE, GPT2_DIGEST, gpt2_merges)


def read_vocabulary(file: Path) -> Vocabulary:
    """Return the vocabulary in a `tokenizer.json` that Tidal wrote. Raises DataError if it is missing or damaged."""
    try:
        if file.stat().st_size > MOST_FILE_BYTES:
            raise DataError(f"{file}: the file is too large for a vocabulary; copy the file again")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: the vocabulary cannot be read ({error.strerror or error})") from error
    return Vocabulary.from_json(content, str(file))


def load_tokenizer() -> tiktoken.Encoding:
    """Return the GPT-2 encoding, built once per process in 0.3 s. Raises DataError if a file is missing or altered."""
    return gpt2_vocabulary().encoding


def gigatoken_definition(vocabulary: Vocabulary) -> bytes:
    """Return a `tokenizer.json` without the special token, whose text gigatoken then encodes like any other text."""
    definition = json.loads(vocabulary.to_json())
    definition["added_tokens"] = []
    del definition["model"]["vocab"][END_OF_TEXT]
    return json.dumps(definition).encode()


def _to_json(merges: Sequence[str]) -> str:
    entries = [*_byte_symbols(), *(merge.replace(" ", "") for merge in merges), END_OF_TEXT]
    special = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(entries) - 1, "content": END_OF_TEXT, **special}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {entry: token for token, entry in enumerate(entries)},
            "merges": list(merges),
        },
    }
    assert SMALLEST_SIZE <= len(entries) <= LARGEST_SIZE
    return json.dumps(definition, ensure_ascii=False, separators=(",", ":"))


def _byte_symbols() -> list[str]:
    """Return the symbols of the single bytes in the order of their ids."""
    return list(symbol_of_byte().values())
