"""The files next to the text of a dataset: `manifest.json`, and `tokens.json` once the dataset has been tokenised."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from tidal_client.vocabulary import DatasetFormat

MANIFEST_FILE = "manifest.json"
TOKENS_FILE = "tokens.json"
FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)


class DatasetManifest(BaseModel):
    """The immutable description of a complete and checked upload."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    name: str
    format: DatasetFormat
    text_field: str = "text"
    """Name of the text column in .jsonl and .parquet."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the stored text, after decompression."""
    size_bytes: int = Field(ge=1)
    documents: int | None = Field(None, ge=0)
    """Number of documents; None for a parquet file that an api without pyarrow received. The tokenising job counts
    them."""
    created_at: datetime

    @property
    def file(self) -> str:
        """Return the name of the text file, which is in the same folder."""
        return f"text.{self.format}"


class TokenRecord(BaseModel):
    """The result of tokenising the text identified by `sha256`, with the default settings of the section `data`."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    train_tokens: int
    validation_tokens: int
    documents: int
    digest: str
    """Digest of the tokens (`common.data.Corpus.digest`)."""
    created_at: datetime
