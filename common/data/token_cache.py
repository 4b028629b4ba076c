"""Stores the tokens of a corpus on disk as memory-mapped uint16 with a JSON header, built once in one pass.

A cache is a folder with `header.json`, and per split `<split>.bin` (tokens, each document followed by `<|endoftext|>`)
and `<split>.documents.bin` (int64 offsets of document starts). It is built under a temporary name and renamed. A file
lock makes a second process wait for the first. A stale or damaged cache is an error and is never rebuilt silently,
because otherwise a resumed training could continue with other data unnoticed.
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

from common.data.held_out import ideal_cut, nearest_document
from common.data.text_bytes import text_bytes
from common.data.vocabulary import Vocabulary
from common.disk import is_full
from common.errors import DataError, DiskFullError, StorageError
from common.files import sha256_of

FORMAT = 1
DTYPE = "uint16"
HEADER = "header.json"
SPLITS = ("train", "validation")
LOCK_SECONDS = 0.2
"""Seconds between two checks whether another process has finished building the cache."""

Tokens = npt.NDArray[np.uint16]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split of a corpus; both arrays are memory-mapped and read-only."""

    tokens: Tokens
    documents: Offsets
    """Offset of the first token of each document."""
    text_bytes: int
    """Number of UTF-8 bytes of the text of all tokens (`common.data.text_bytes`)."""


@dataclass(frozen=True)
class TokenCache:
    """An opened and verified cache."""

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
    vocabulary: Vocabulary,
    heartbeat: Callable[[], None] = lambda: None,
) -> TokenCache:
    """Return the cache in `folder`; if there is none, create it with `build(temporary folder)`.

    `vocabulary` is the one of the tokens. `expected` holds the values that the header must have. `stamp` and `digest`
    return the stamp and the digest of the source as it is now. For an existing cache, `digest` is called only if the
    stamp differs from the one in the header. `heartbeat` is called several times a second while another process builds
    the cache, and while files are hashed. Raises DataError if the cache is stale or damaged, and StorageError if it
    cannot be written.
    """
    if not folder.exists():
        with writing_cache(folder), cache_lock(folder, heartbeat):
            if not folder.exists():
                _build(folder, expected, stamp, digest, build, vocabulary, heartbeat)
    header = _read_header(folder)
    for key, value in expected.items():
        if header.get(key) != value:
            raise _stale(folder, f"its {key} is {header.get(key)!r}, but {value!r} is needed")
    now = stamp()
    if now and now != header.get("stamp") and digest() != header.get("source_digest"):
        raise _stale(folder, "the source has changed since the cache was built")
    train, validation = (_open_split(folder, name, header, vocabulary, heartbeat) for name in SPLITS)
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
        """Append one document and the end-of-text token."""
        self._documents.write(np.int64(self.tokens).tobytes())
        self._tokens.write(document.astype(np.uint16).tobytes() + self._end_of_text)
        self.tokens += len(document) + 1
        self.documents += 1

    def close(self) -> None:
        """Flush both files to the disk and close them."""
        # Close both files even if flushing one fails, because a deleted file that is still open occupies space.
        with self._tokens, self._documents:
            for file in (self._tokens, self._documents):
                file.flush()
                os.fsync(file.fileno())


def move_tail(
    folder: Path, source: str, target: str, fraction: float, lengths: npt.NDArray[np.uint16] | None = None
) -> None:
    """Move the last `fraction` of the tokens from split `source` to split `target`, which must be empty.

    With two or more documents the cut is at the start of a document, otherwise it is inside the only document. With
    `lengths`, the bytes of each id (V,), bytes are counted instead of tokens, as `training_documents` does. A token
    across the border belongs to the training split, so a vocabulary of the training text knows nothing of validation.
    """
    tokens = np.fromfile(folder / f"{source}.bin", dtype=np.uint16)
    documents = np.fromfile(folder / f"{source}.documents.bin", dtype=np.int64)
    if lengths is None:
        starts, total = documents, len(tokens)
    else:
        sizes = lengths[tokens]
        ends = np.cumsum(np.add.reduceat(sizes, documents, dtype=np.int64))
        starts, total = np.concatenate((np.zeros(1, np.int64), ends[:-1])), int(ends[-1])
    cut = ideal_cut(total, fraction)
    if len(documents) > 1:
        cut = int(documents[nearest_document(starts, cut)])
    elif lengths is not None:
        before = np.cumsum(sizes, dtype=np.int64) - sizes
        side = before >= cut if target == "validation" else before > cut
        cut = max(2, min(len(tokens) - 2, int(side.argmax()) - (target == "train")))
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
    vocabulary: Vocabulary,
    heartbeat: Callable[[], None],
) -> None:
    for abandoned in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(abandoned, ignore_errors=True)  # left by a process that died: a living one would hold the lock
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        before, source_digest = stamp(), digest()
        build(temporary)
        if stamp() != before:
            raise DataError(
                "the source changed while the token cache was built; start again when the source is complete"
            )
        header = {
            "format": FORMAT,
            "dtype": DTYPE,
            **expected,
            "stamp": before,
            "source_digest": source_digest,
            "splits": {name: _describe(temporary, name, vocabulary, heartbeat) for name in SPLITS},
        }
        with (temporary / HEADER).open("w", encoding="utf-8") as file:
            json.dump(header, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _describe(folder: Path, name: str, vocabulary: Vocabulary, heartbeat: Callable[[], None]) -> dict[str, Any]:
    tokens, documents = folder / f"{name}.bin", folder / f"{name}.documents.bin"
    empty = not tokens.stat().st_size
    return {
        "count": tokens.stat().st_size // 2,
        "documents": documents.stat().st_size // 8,
        "sha256": sha256_of(tokens, heartbeat),
        "documents_sha256": sha256_of(documents, heartbeat),
        "text_bytes": 0 if empty else text_bytes(np.memmap(tokens, DTYPE, "r"), vocabulary, heartbeat),
    }


def _open_split(
    folder: Path, name: str, header: dict[str, Any], vocabulary: Vocabulary, heartbeat: Callable[[], None]
) -> Split:
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
    tokens = np.memmap(folder / f"{name}.bin", dtype=np.uint16, mode="r")
    documents = np.memmap(folder / f"{name}.documents.bin", dtype=np.int64, mode="r")
    size = entry.get("text_bytes")
    if not isinstance(size, int):  # a cache of an older version does not contain the number
        size = text_bytes(tokens, vocabulary, heartbeat)
    return Split(tokens, documents, size)


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{HEADER} cannot be read ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("dtype") != DTYPE:
        raise _damaged(folder, f"{HEADER} is not of format {FORMAT}")
    return header


def _stale(folder: Path, reason: str) -> DataError:
    return DataError(f"the token cache is stale: {reason}. Remove {folder} and start again to rebuild it")


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"the token cache is damaged: {reason}. Remove {folder} and start again to rebuild it")


@contextmanager
def writing_cache(folder: Path) -> Iterator[None]:
    """Create the folder of all caches, and turn an OSError into a StorageError that names it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (DataError, StorageError):
        raise
    except OSError as error:
        raise (DiskFullError if is_full(error) else StorageError)(
            f"{folder.parent}: the token cache cannot be written ({error.strerror or error}); "
            "free some space, or set TIDAL_DATA_DIR to a writable folder"
        ) from error


@contextmanager
def cache_lock(folder: Path, heartbeat: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a cache. Call `heartbeat` several times a second while another process holds it."""
    # The kernel releases the lock when its holder dies, so a killed process does not block others.
    with folder.with_name(f"{folder.name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                heartbeat()
                time.sleep(LOCK_SECONDS)
        yield
