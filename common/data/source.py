"""The sources of documents: built-in stories, uploaded datasets, text files, Hugging Face datasets.

A source yields its documents one by one and identifies its content by a digest. Which files may be read is decided in
`places`. Reading files is in `common.datasets.reading`, and tokens are in `token_cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from common.config.data import CorpusConfig
from common.data import stories
from common.data.places import find_dataset, find_file, require_hub_name, require_valid_source
from common.datasets import BUILTIN_STORIES, SUFFIXES, DatasetManifest, is_dataset_name, is_file_name, is_hub_name
from common.datasets.reading import pieces, read_file, require_some, text_column, texts_of
from common.decoding.memory import limited_memory
from common.errors import DataError
from common.files import sha256_of

HUB_BATCH_ROWS = 1024
"""Number of rows of a Hugging Face dataset that are read at a time."""
HUB_MEMORY_BYTES = 4 * 2**30
"""Memory limit for fetching a Hugging Face dataset. Its parquet files are untrusted, and each row group is decoded as
a whole, so a large row group could take all memory."""


class DocumentSource(Protocol):
    """A stream of documents with a digest of its content."""

    @property
    def description(self) -> str:
        """Return the name of the source, for messages to users."""
        ...

    def stamp(self) -> dict[str, Any]:
        """Return values, such as a size, that change whenever the content may have changed; {} if none exist.

        Unlike the digest, they are found without reading the content.
        """
        ...

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        """Return a digest of the content. This may read all content, and calls `heartbeat` regularly."""
        ...

    def count(self) -> int | None:
        """Return the number of documents, or None if it is not known without reading them."""
        ...

    def documents(self) -> Iterator[str]:
        """Yield the documents in the order of the source, without surrounding white space and without empty ones.

        Raises DataError for a malformed document.
        """
        ...


@dataclass(frozen=True)
class StoriesSource:
    """The built-in corpus `builtin:stories`."""

    total: int = stories.STORY_COUNT
    """Number of stories."""

    @property
    def description(self) -> str:
        return "builtin:stories (written by a program, a stand-in for natural text)"

    def stamp(self) -> dict[str, Any]:
        return {"digest": self.digest()}

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        return f"stories-{stories.VERSION}-{stories.DEFAULT_SEED}-{self.total}"

    def count(self) -> int | None:
        return self.total

    def documents(self) -> Iterator[str]:
        return (stories.story(index) for index in range(self.total))


@dataclass(frozen=True)
class FileSource:
    """A local file, whose suffix determines how it is read."""

    path: Path
    text_field: str

    @property
    def description(self) -> str:
        return str(self.path)

    def stamp(self) -> dict[str, Any]:
        with self._readable():
            status = self.path.stat()
        return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        with self._readable():
            return sha256_of(self.path, heartbeat)

    def count(self) -> int | None:
        return None

    def documents(self) -> Iterator[str]:
        return read_file(self.path, self.text_field, where=self.description)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error


@dataclass(frozen=True)
class DatasetSource(FileSource):
    """An uploaded dataset: a file with a manifest that holds its hash and number of documents."""

    manifest: DatasetManifest

    @property
    def description(self) -> str:
        return f"dataset {self.manifest.name}"

    def stamp(self) -> dict[str, Any]:
        return {"digest": self.manifest.sha256}

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        return self.manifest.sha256

    def count(self) -> int | None:
        return self.manifest.documents


@dataclass(frozen=True)
class HubSource:
    """One split of a Hugging Face dataset, which the `datasets` library fetches into its own cache."""

    name: str
    split: str
    text_field: str

    @property
    def description(self) -> str:
        return f"{self.name} ({self.split})"

    def stamp(self) -> dict[str, Any]:
        return {}

    def digest(self, heartbeat: Callable[[], None] | None = None) -> str:
        return f"hub-{self.name}-{self.split}-{self._load()._fingerprint}"

    def count(self) -> int | None:
        return len(self._load())

    def documents(self) -> Iterator[str]:
        rows = self._load()
        text_column(rows.features.arrow_schema, self.text_field, self.description)
        tables = rows.select_columns([self.text_field]).with_format("arrow")
        row = found = 0
        for table in tables.iter(batch_size=HUB_BATCH_ROWS):
            for text in texts_of(table.column(self.text_field), self.text_field, self.description, row):
                for piece in pieces(text):
                    found += 1
                    yield piece
            row += table.num_rows
        require_some(found, self.description)

    def _load(self) -> Any:
        return _from_hub(self.name, "load_dataset", split=self.split)


def hub_splits(name: str) -> list[str]:
    """Return the names of the splits of a Hugging Face dataset."""
    return list(_from_hub(name, "get_dataset_split_names"))


def training_source(config: CorpusConfig, data_dir: Path) -> DocumentSource:
    """Return the training source of a configuration. Raises DataError for a missing file or an invalid name."""
    require_valid_source(config.source)
    if config.source == BUILTIN_STORIES:
        if config.max_documents is not None:
            return StoriesSource(min(config.max_documents, stories.STORY_COUNT))
        return StoriesSource()
    if (local := _local_source(config.source, config, data_dir)) is not None:
        return local
    require_hub_name(config.source)
    return HubSource(config.source, "train", config.text_field)


def validation_source(config: CorpusConfig, data_dir: Path) -> DocumentSource | None:
    """Return the separate validation source, or None if documents of the training source are held out instead.

    Raises DataError for a missing file, an invalid name or an unknown split.
    """
    named = config.validation_source
    if named is not None and is_file_name(named):
        return FileSource(find_file(named, data_dir), config.text_field)
    if not is_hub_name(config.source):
        if named is None:
            return None
        require_valid_source(named)
        if (local := _local_source(named, config, data_dir)) is None:
            raise DataError(f"data.validation_source {named}: expected a dataset or a file ({', '.join(SUFFIXES)})")
        return local
    require_hub_name(config.source)
    splits = hub_splits(config.source)
    if named is not None and named not in splits:
        raise DataError(
            f"{config.source} has no split '{named}'; set data.validation_source to one of {', '.join(splits)}"
        )
    chosen = named or next((split for split in ("validation", "valid", "test") if split in splits), None)
    return HubSource(config.source, chosen, config.text_field) if chosen else None


def _local_source(name: str, config: CorpusConfig, data_dir: Path) -> FileSource | None:
    """Return the source for a local file or an uploaded dataset, or None if `name` has neither form.

    The manifest of a dataset names its text field, so `config.text_field` applies to files only.
    """
    if is_file_name(name):
        return FileSource(find_file(name, data_dir), config.text_field)
    if is_dataset_name(name):
        manifest, path = find_dataset(name, data_dir)
        return DatasetSource(path, manifest.text_field, manifest)
    return None


def first_documents(source: DocumentSource, limit: int | None) -> Iterator[str]:
    """Yield the documents of a source, at most `limit` of them."""
    return islice(source.documents(), limit)


def _from_hub(name: str, function: str, **arguments: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{name}: a Hugging Face dataset needs the package datasets; install tidal[torch]") from error
    try:
        with limited_memory(HUB_MEMORY_BYTES):
            return getattr(datasets, function)(name, **arguments)
    except MemoryError as error:  # includes pyarrow's ArrowMemoryError
        raise DataError(
            f"{name}: fetching the dataset takes more than {HUB_MEMORY_BYTES // 2**30} GiB of memory, because its row "
            "groups are too large; choose another dataset, or upload its text"
        ) from error
    except Exception as error:  # the library does not wrap the exceptions of its HTTP client
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"{name}: cannot be fetched from Hugging Face ({reason}); check the name and the network, or set "
            f"data.source to {BUILTIN_STORIES} or a local {', '.join(SUFFIXES)} file"
        ) from error
