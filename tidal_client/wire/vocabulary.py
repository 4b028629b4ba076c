"""The vocabulary of a language model: which texts its tokens stand for."""

from __future__ import annotations

from .base import Reply


class VocabularyReply(Reply):
    """Name, size and digest of a vocabulary."""

    name: str
    """`gpt2`, or for example `train:4096` for a vocabulary of 4,096 entries that was trained on the model's corpus."""
    size: int
    """Number of entries, including `<|endoftext|>`."""
    digest: str
    """SHA-256 of the vocabulary. Models with the same digest have the same token ids."""


class VocabularyDetail(VocabularyReply):
    """The vocabulary of an experiment, with some of its entries. For GPT-2's vocabulary, the lists are empty."""

    experiment_id: str
    words: list[str]
    """The first entries of at least four bytes that the training of the vocabulary found; they are the most frequent
    ones of the text. An entry that is not valid text by itself is written as `bytes:\\xe2\\x80`."""
    longest: list[str]
    """The longest entries, the longest first."""
    mean_bytes: float | None = None
    """Mean length of the entries in bytes, without `<|endoftext|>`; null for GPT-2's vocabulary."""
    download: str | None = None
    """URL path of the `tokenizer.json` in the format of Hugging Face; null for GPT-2's vocabulary."""
