"""Tokens of a corpus on disk: uint16, memory-mapped, with a JSON header, built once in a stream.

A cache is a folder with `header.json`, and per split `<split>.bin` (tokens, each document followed by
`<|endoftext|>`) and `<split>.documents.bin` (int64 offsets of document starts). It is built under a temporary name and
renamed; a file lock makes a second process wait for the first. What is stale or damaged is an error, never a silent
rebuild: a run that resumes must not meet other data unnoticed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.disk import is_full
from common.errors import DataError, DiskFullError, StorageError
from common.files import sha256_of

FORMAT = 1
DTYPE = "uint16"
HEADER = "header.json"
SPLITS = ("train", "validation")
LOCK_SECONDS = 0.2
"""Between two looks whether another process has finished building."""

Tokens = npt.NDArray[np.uint16]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One part of a corpus, both arrays memory-mapped and read-only."""

    tokens: Tokens
    documents: Offsets
    """Offset of the first token of each document."""


@dataclass(frozen=True)
class TokenCache:
    """An opened, verified cache."""

    folder: Path
    header: dict[str, Any]
    train: Split
    validation: Split


def open_cache(
    folder: Path,
    expected: dict[str, Any],
    stamp: Callable[[], dict[str, Any]],
    digest: Callable[[], str],
    build: Callable[[Path], None],
    heartbeat: Callable[[], None] = lambda: None,
) -> TokenCache:
    """The cache in `folder`, built by `build(temporary folder)` when there is none.

    `expected` are header fields that must agree; `stamp` and `digest` describe the source as it is now (the digest is
    computed only when the stamp differs from the one recorded). `beat` is called several times a second while another
    process builds the cache, and while files are hashed. Raises DataError when the cache is stale or damaged and
    StorageError when it cannot be written; both say what to do.
    """
    if not folder.exists():
        with _writing(folder), _lock(folder, heartbeat):
            if not folder.exists():
                _build(folder, expected, stamp, digest, build, heartbeat)
    header = _read_header(folder)
    for key, value in expected.items():
        if header.get(key) != value:
            raise _stale(folder, f"its {key} is {header.get(key)!r}, needed is {value!r}")
    now = stamp()
    if now and now != header.get("stamp") and digest() != header.get("source_digest"):
        raise _stale(folder, "the source has changed since the cache was built")
    train, validation = (_open_split(folder, name, header, heartbeat) for name in SPLITS)
    return TokenCache(folder, header, train, validation)


class SplitWriter:
    """Appends documents to one split of a cache that is being built."""

    def __init__(self, folder: Path, name: str, end_of_text: int) -> None:
        self._tokens = (folder / f"{name}.bin").open("wb")
        self._documents = (folder / f"{name}.documents.bin").open("wb")
        self._end_of_text = np.uint16(end_of_text).tobytes()
        self.tokens = 0
        self.documents = 0

    def add(self, document: npt.NDArray[np.uint32]) -> None:
        """Write one document and the end-of-text token."""
        self._documents.write(np.int64(self.tokens).tobytes())
        self._tokens.write(document.astype(np.uint16).tobytes() + self._end_of_text)
        self.tokens += len(document) + 1
        self.documents += 1

    def close(self) -> None:
        """Flush both files to the disk."""
        # If the disk refuses one file, close both all the same: an open deleted file still occupies its space.
        with self._tokens, self._documents:
            for file in (self._tokens, self._documents):
                file.flush()
                os.fsync(file.fileno())


def move_tail(folder: Path, source: str, target: str, fraction: float) -> None:
    """Cut the last `fraction` of the tokens off split `source` and make them split `target`, which was empty.

    The cut is at a document's start where there are two documents or more, within the only one otherwise.
    """
    tokens = np.fromfile(folder / f"{source}.bin", dtype=np.uint16)
    documents = np.fromfile(folder / f"{source}.documents.bin", dtype=np.int64)
    wanted = max(2, min(len(tokens) - 2, round(len(tokens) * (1 - fraction))))
    if len(documents) > 1:
        starts = documents[1:]
        cut = int(starts[np.abs(starts - wanted).argmin()])
    else:
        cut = wanted
    tail = documents[documents >= cut] - cut
    for name, part, starts in (
        (target, tokens[cut:], tail if len(tail) else np.zeros(1, dtype=np.int64)),
        (source, tokens[:cut], documents[documents < cut]),
    ):
        part.tofile(folder / f"{name}.bin")
        starts.tofile(folder / f"{name}.documents.bin")


def _build(
    folder: Path,
    expected: dict[str, Any],
    stamp: Callable[[], dict[str, Any]],
    digest: Callable[[], str],
    build: Callable[[Path], None],
    heartbeat: Callable[[], None],
) -> None:
    for abandoned in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)  # its writer died: we hold the lock
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        before, source_digest = stamp(), digest()
        build(temporary)
        if stamp() != before:
            raise DataError("the source changed while it was read; start again when it is complete")
        header = {
            "format": FORMAT,
            "dtype": DTYPE,
            **expected,
            "stamp": before,
            "source_digest": source_digest,
            "splits": {name: _describe(temporary, name, heartbeat) for name in SPLITS},
        }
        with (temporary / HEADER).open("w", encoding="utf-8") as file:
            json.dump(header, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _describe(folder: Path, name: str, heartbeat: Callable[[], None]) -> dict[str, Any]:
    tokens, documents = folder / f"{name}.bin", folder / f"{name}.documents.bin"
    return {
        "count": tokens.stat().st_size // 2,
        "documents": documents.stat().st_size // 8,
        "sha256": sha256_of(tokens, heartbeat),
        "documents_sha256": sha256_of(documents, heartbeat),
    }


def _open_split(folder: Path, name: str, header: dict[str, Any], heartbeat: Callable[[], None]) -> Split:
    try:
        entry = header["splits"][name]
        sizes = {f"{name}.bin": entry["count"] * 2, f"{name}.documents.bin": entry["documents"] * 8}
        digests = {f"{name}.bin": entry["sha256"], f"{name}.documents.bin": entry["documents_sha256"]}
    except (KeyError, TypeError) as error:
        raise _damaged(folder, f"{HEADER} does not describe the {name} split") from error
    for file, size in sizes.items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != size:
            raise _damaged(folder, f"{file} is missing or not {size} bytes long")
        if sha256_of(path, heartbeat) != digests[file]:
            raise _damaged(folder, f"the content of {file} differs from its SHA-256")
    if not entry["count"] or not entry["documents"]:
        raise _damaged(folder, f"the {name} split is empty")
    return Split(
        np.memmap(folder / f"{name}.bin", dtype=np.uint16, mode="r"),
        np.memmap(folder / f"{name}.documents.bin", dtype=np.int64, mode="r"),
    )


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{HEADER} cannot be read ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("dtype") != DTYPE:
        raise _damaged(folder, f"{HEADER} is not of format {FORMAT}")
    return header


def _stale(folder: Path, reason: str) -> DataError:
    return DataError(f"the token cache is stale: {reason}. Remove {folder} and start again; it is rebuilt then")


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"the token cache is damaged: {reason}. Remove {folder} and start again; it is rebuilt then")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (DataError, StorageError):
        raise
    except OSError as error:
        raise (DiskFullError if is_full(error) else StorageError)(
            f"{folder.parent}: the token cache cannot be written ({error.strerror or error}); "
            "free some space or set TIDAL_DATA_DIR to a folder that can be written"
        ) from error


@contextmanager
def _lock(folder: Path, heartbeat: Callable[[], None]) -> Iterator[None]:
    # The kernel drops the lock when its holder dies, so a killed builder blocks nobody.
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                heartbeat()
                time.sleep(LOCK_SECONDS)
        yield
