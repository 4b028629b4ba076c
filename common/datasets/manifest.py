"""What lies beside the text of a dataset: `manifest.json` since the upload, `tokens.json` once it was tokenised."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from tidal_client.vocabulary import DatasetFormat

MANIFEST_FILE = "manifest.json"
TOKENS_FILE = "tokens.json"
FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)


class Manifest(BaseModel):
    """An upload, complete and checked; never changed afterwards."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    name: str
    format: DatasetFormat
    text_field: str = "text"
    """Of .jsonl and .parquet."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the text as it lies here: unpacked."""
    size_bytes: int = Field(ge=1)
    documents: int | None = Field(None, ge=0)
    """None: parquet that came to an api without pyarrow; the job counts."""
    created_at: datetime

    @property
    def file(self) -> str:
        """Name of the text beside the manifest."""
        return f"text.{self.format}"


class TokenRecord(BaseModel):
    """What tokenising the content with this hash gave, with the default settings of `data`."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    train_tokens: int
    validation_tokens: int
    documents: int
    digest: str
    """Of the tokens (`common.data.Corpus.digest`)."""
    created_at: datetime
