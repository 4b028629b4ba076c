"""Which text the demonstration learns from: the given file, the hub if it answers, else the built-in stories."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import DataConfig
from common.datasets import BUILTIN_STORIES, SUFFIXES, refusal_of_name, split_name
from common.datasets.reading import read_file
from common.errors import DataError, InvalidInputError, NotFoundError, StorageError
from services.cli.commands.doctor import HUB_CORPUS, hub_reachable
from services.cli.output import size

MOST_OF_NAME = 40
"""Characters, the last of a file's name, that the link below the data folder keeps."""
HUB_DOCUMENTS = 50_000
"""Of the hub's corpus; more than minutes of training can see."""


@dataclass(frozen=True)
class Corpus:
    """A choice. `source` is what a configuration names, unless `file` must be brought into the data folder first."""

    description: str
    source: str = ""
    file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Further values of the `data` section."""
    replacement: Corpus | None = None
    """What to use when this one cannot be."""

    def place(self, data_dir: Path) -> str:
        """The name for `data.source`; a file is linked, or copied, below `data_dir`. StorageError."""
        if self.file is None:
            return self.source
        try:
            # A file that has changed gets another name: the token cache of the old one would be stale, an error.
            status = self.file.stat()
            key = os.fsencode(self.file) + f"\0{status.st_size}\0{status.st_mtime_ns}".encode()
            name = f"demo/{hashlib.sha256(key).hexdigest()[:8]}-{self.file.name[-MOST_OF_NAME:]}"
            target = data_dir / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _same(self.file, target):
                temporary = target.with_name(f".{target.name}.{os.getpid()}")
                try:
                    os.link(self.file, temporary)
                except OSError:  # another file system, or links are not allowed
                    shutil.copy2(self.file, temporary)
                temporary.replace(target)
        except OSError as error:
            raise StorageError(f"{self.file} cannot be brought to {data_dir}: {error.strerror or error}") from error
        return name


def choose_corpus(path: Path | None) -> Corpus:
    """The corpus for `--data path`; without one the hub's, with the built-in stories as replacement, or those."""
    if path is not None:
        return local_corpus(path)
    builtin = Corpus(f"{BUILTIN_STORIES}, written by a program; DATA=path takes your own text", BUILTIN_STORIES)
    if not hub_reachable():
        return builtin
    settings = {"max_documents": HUB_DOCUMENTS}
    return Corpus(f"{HUB_CORPUS} from the hub", HUB_CORPUS, settings=settings, replacement=builtin)


def local_corpus(path: Path) -> Corpus:
    """A file of the user's. NotFoundError; InvalidInputError when its beginning shows already that it is no corpus."""
    path = path.expanduser().resolve()
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder; name one file ({', '.join(SUFFIXES)})")
    if not path.exists():
        raise NotFoundError(f"{path}: no such file")
    if split_name(path.name)[1] is None:
        other = f"a corpus is a file with suffix {', '.join(SUFFIXES)}, also gzipped"
        raise InvalidInputError(f"{path.name}: {refusal_of_name(path.name) or other}")
    if not os.access(path, os.R_OK):
        raise StorageError(f"{path} cannot be read by this user")
    try:
        # The training reads all of it; the first document tells a wrong kind of file before everything is started.
        next(read_file(path, DataConfig().text_field, where=str(path)), None)
    except DataError as error:
        raise InvalidInputError(error.message) from None
    return Corpus(f"{path} ({size(path.stat().st_size)})", file=path)


def _same(source: Path, target: Path) -> bool:
    """Whether `target` is `source` already: the same file, or a copy with its size and time."""
    if not target.exists():
        return False
    if source.samefile(target):
        return True
    one, other = source.stat(), target.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
