"""The section `data` of a job: the corpora to train and validate on, and their vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from common.config.base import Section
from common.config.tokenizers import GPT2, trained_size
from common.files import path_problem, shortened

MOST_SOURCE = 4096
"""Largest number of characters of the name of a corpus. It is the limit of Linux for paths; a name may be a path."""
MOST_TEXT_FIELD = 200
"""Largest number of characters of `text_field`, the name of a column."""


MOST_SOURCES = 64
"""Largest number of corpora of one training."""


class CorpusConfig(Section):
    """One corpus: what `common.data` needs to read it and to divide it into a training and a validation part.

    `DataConfig.corpora` returns it. The name of a token cache depends on exactly these fields, so a new field must not
    be in the dump while it has its default.
    """

    source: str
    validation_source: str | None
    validation_fraction: float
    text_field: str
    max_documents: int | None
    tokenizer: str


class WeightedCorpus(Section):
    """An entry of `data.sources`: one corpus and its share of the training."""

    source: str = Field(min_length=1, max_length=MOST_SOURCE)
    """The corpus, named like `data.source`."""
    weight: float = Field(1.0, gt=0, le=1e9)
    """Share of the training tokens that come from this corpus, relative to the weights of the other entries."""
    validation_source: str | None = Field(None, min_length=1, max_length=MOST_SOURCE)
    """Another corpus for the validation of this entry, as in `data.validation_source`."""
    text_field: str = Field("text", min_length=1, max_length=MOST_TEXT_FIELD)
    """Name of the text column, as in `data.text_field`."""
    max_documents: int | None = Field(None, ge=2)
    """Number of documents to use, from the start of this corpus; None means all."""

    @field_validator("source", "validation_source")
    @classmethod
    def _can_be_a_file(cls, name: str | None) -> str | None:
        return _checked_name(name)


class DataConfig(Section):
    """The text to train and validate on: one corpus (`source`) or several (`sources`)."""

    source: str | None = Field("roneneldan/TinyStories", max_length=MOST_SOURCE)
    """The corpus: `builtin:stories` (a procedural sample that ships with Tidal), the name of an uploaded dataset, the
    path of a .txt, .jsonl or .parquet file (may be gzipped), or owner/name of a dataset on the Hugging Face Hub. None
    if `sources` lists several corpora."""
    sources: tuple[WeightedCorpus, ...] = Field((), max_length=MOST_SOURCES)
    """Several corpora in place of `source`, as a list of entries with `source` and `weight`. Each corpus has its own
    validation part; the keys of an entry are listed below."""
    validation_source: str | None = Field(None, max_length=MOST_SOURCE)
    """Another corpus for validation, named like `source`. None means the validation part of `source`; if `source` has
    none, a share of its documents (`validation_fraction`)."""
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the documents that is held out for validation when a corpus has no validation part."""
    text_field: str = Field("text", min_length=1, max_length=MOST_TEXT_FIELD)
    """Name of the text column in .jsonl and .parquet files and Hugging Face datasets. Not used for uploaded datasets,
    which store the name of their column."""
    max_documents: int | None = Field(None, ge=2)
    """Number of documents to use, from the start of the corpus; None means all."""
    tokenizer: str = Field(GPT2, max_length=40)
    """The vocabulary: `gpt2`, or `train:N` to train a byte-level BPE of N entries (257 to 65,536, with
    `<|endoftext|>`) on the corpus, for example `train:4096`. A model that exists keeps the vocabulary it was trained
    with: a training that starts from its checkpoint, and every job that reads the corpus for it."""

    @field_validator("tokenizer")
    @classmethod
    def _is_a_tokenizer(cls, tokenizer: str) -> str:
        trained_size(tokenizer)
        return tokenizer

    @model_validator(mode="before")
    @classmethod
    def _sources_replace_the_default_source(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("sources") and "source" not in given:
            return {**given, "source": None}
        return given

    @field_validator("source", "validation_source")
    @classmethod
    def _can_be_a_file(cls, name: str | None) -> str | None:
        if name == "":
            raise ValueError("the name of the corpus is empty")
        return _checked_name(name)

    @model_validator(mode="after")
    def _one_corpus_or_several(self) -> Self:
        if not self.sources:
            if self.source is None:
                raise ValueError("there is no corpus; set source, or list several in sources")
            return self
        if self.source is not None:
            raise ValueError(
                f"source {shortened(self.source)} and sources exclude each other; move source into the list, or "
                "leave one of them out"
            )
        for name, unset in (("validation_source", None), ("text_field", "text"), ("max_documents", None)):
            if getattr(self, name) != unset:
                raise ValueError(f"{name} belongs to source; with sources, set it in the entries of the list")
        names = [entry.source for entry in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"sources lists {shortened(twice)} twice; list it once, with the sum of the weights")
        return self

    def corpora(self) -> tuple[CorpusConfig, ...]:
        """Return the settings of each corpus, in the order of `sources`."""
        entries = self.sources or (self,)
        return tuple(
            CorpusConfig(
                source=entry.source or "",
                validation_source=entry.validation_source,
                validation_fraction=self.validation_fraction,
                text_field=entry.text_field,
                max_documents=entry.max_documents,
                tokenizer=self.tokenizer,
            )
            for entry in entries
        )

    def names_same_text(self, other: DataConfig) -> bool:
        """Return whether both sections name the same corpora, whatever the weights and the vocabulary."""
        return self.model_copy(update={"tokenizer": other.tokenizer}).corpora() == other.corpora()

    def shares(self) -> tuple[float, ...]:
        """Return the share of the training tokens of each corpus. The sum is 1."""
        total = sum(entry.weight for entry in self.sources)
        return tuple(entry.weight / total for entry in self.sources) or (1.0,)


def _checked_name(name: str | None) -> str | None:
    if name is not None and (problem := path_problem(name)):
        raise ValueError(f"the name {shortened(name)} {problem}")
    return name
