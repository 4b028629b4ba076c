"""Chooses the corpus of the demonstration: a given file, else one of the Hugging Face hub, else a built-in one."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import DataConfig
from common.datasets import BUILTIN_STORIES, SUFFIXES, file_name_problem, split_name
from common.datasets.reading import read_file
from common.errors import DataError, InvalidInputError, NotFoundError, StorageError
from services.cli.commands.doctor import HUB_CORPUS, hub_reachable
from services.cli.output import format_size

MOST_OF_NAME = 40
"""The name of a link ends with the last characters of the file's name, at most this number."""
SHORT_BYTES = 200_000
"""A file below this size may be too short, or too repetitive, for the vocabulary of configs/demo/lm.yaml."""
SHORT_TOKENIZER = "train:257"
"""The vocabulary for such a file, which fits every text: one token per byte, and `<|endoftext|>`."""
HUB_DOCUMENTS = 50_000
"""Maximum number of documents that are used from the corpus on the Hugging Face hub. A training of some minutes reads
fewer documents."""


@dataclass(frozen=True)
class DemoCorpus:
    """A corpus: either a value of `data.source` (`source`), or a `file` that must be linked into the data folder."""

    description: str
    source: str = ""
    file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Other values of the `data` section of the configuration."""
    replacement: DemoCorpus | None = None
    """The corpus to use if training on this one fails; None if the failure is final."""

    def place(self, data_dir: Path) -> str:
        """Link or copy the file, if any, into `data_dir`, and return the value for `data.source`.

        Raises StorageError.
        """
        if self.file is None:
            return self.source
        try:
            # A changed file gets another name, because the token cache for the old name contains the old text.
            status = self.file.stat()
            key = os.fsencode(self.file) + f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
            name = f"demo/{hashlib.sha256(key).hexdigest()[:8]}-{self.file.name[-MOST_OF_NAME:]}"
            target = data_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _is_same_file(self.file, target):
                temporary = target.with_name(f".{target.name}.{os.getpid()}")
                try:
                    os.link(self.file, temporary)
                except OSError:  # `data_dir` is on another file system, or hard links are not allowed
                    shutil.copy2(self.file, temporary)
                temporary.replace(target)
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{self.file} cannot be linked or copied to {data_dir}: {reason}") from error
        return name


def choose_corpus(path: Path | None) -> DemoCorpus:
    """Return the corpus in `path`.

    Without a path, return the corpus on the Hugging Face hub if the hub is reachable, else the built-in corpus.
    """
    if path is not None:
        return local_corpus(path)
    description = (
        f"{BUILTIN_STORIES}, which a program generated; to use your own text, add --data (make demo DATA=path)"
    )
    builtin = DemoCorpus(description, BUILTIN_STORIES)
    if not hub_reachable():
        return builtin
    settings = {"max_documents": HUB_DOCUMENTS}
    return DemoCorpus(f"{HUB_CORPUS} from the Hugging Face hub", HUB_CORPUS, settings=settings, replacement=builtin)


def local_corpus(path: Path) -> DemoCorpus:
    """Return the corpus in a file.

    Raises NotFoundError if the file does not exist, StorageError if it cannot be read, and InvalidInputError if its
    name or its first document shows that it is not a corpus.
    """
    path = path.expanduser().resolve()
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; give the path of one file ({', '.join(SUFFIXES)})")
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if split_name(path.name)[1] is None:
        rule = f"a corpus must be a file with suffix {', '.join(SUFFIXES)}; it may be gzipped"
        raise InvalidInputError(f"{path.name}: {file_name_problem(path.name) or rule}")
    if not os.access(path, os.R_OK):
        raise StorageError(f"{path} cannot be read by this user; change its permissions")
    try:
        # Reading the first document detects an invalid file before the stack is started.
        next(read_file(path, DataConfig().text_field, where=str(path)), None)
    except DataError as error:
        raise InvalidInputError(error.message) from None
    size = path.stat().st_size
    settings = {"tokenizer": SHORT_TOKENIZER} if size < SHORT_BYTES else {}
    return DemoCorpus(f"{path} ({format_size(size)})", file=path, settings=settings)


def _is_same_file(source: Path, target: Path) -> bool:
    """Return whether `target` is the same file as `source`, or a copy with the same size and modification time."""
    if not target.exists():
        return False
    if source.samefile(target):
        return True
    original, copy = source.stat(), target.stat()
    return (original.st_size, original.st_mtime_ns) == (copy.st_size, copy.st_mtime_ns)
