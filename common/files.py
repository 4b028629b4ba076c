"""Writes files atomically and durably, checks their names and computes their digests.

A file is written under a temporary name in the same folder, flushed and renamed, so that neither a crash nor a full
disk leaves a partial file. `common.checkpoint.files` reads and writes the formats of torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.disk import is_full
from common.errors import DiskFullError, StorageError

HASH_BLOCK_BYTES = 16 * 1024 * 1024
MOST_NAME_BYTES = 255
"""Largest number of UTF-8 bytes in the name of a file or folder, which is the limit of ext4, XFS and APFS."""
MOST_PATH_BYTES = 1024
"""Largest number of bytes in a relative path. With the path of its folder it must fit into Linux's limit of 4,096
bytes."""


def path_problem(name: str) -> str | None:
    """Return why no file can have this name or relative path, or None if a file can have it.

    Check every name from outside with this function first; using an impossible name as a path could raise OSError or
    ValueError.
    """
    if "\0" in name:
        return "contains a NUL character"
    try:
        parts = [part.encode("utf-8") for part in name.split("/")]
    except UnicodeEncodeError:
        return "contains half a surrogate pair, which is not a character"
    if any(len(part) > MOST_NAME_BYTES for part in parts):
        return f"has a part of more than {MOST_NAME_BYTES} bytes, which is too long for a file name"
    if sum(map(len, parts)) + len(parts) > MOST_PATH_BYTES:
        return f"is longer than {MOST_PATH_BYTES} bytes"
    return None


def shortened(text: str, most: int = 80) -> str:
    """Return `text` in quotes for an error message, cut after `most` characters."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"


def sha256_of(path: Path, beat: Callable[[], None] | None = None) -> str:
    """Return the SHA-256 digest of a file in hexadecimal; `beat` is called after every 16 MiB."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            if beat is not None:
                beat()
    return digest.hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON to `path` and flush it; raise ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. NaN and infinity, which other programs and older versions write, become None."""
    return json.loads(text, parse_constant=lambda _: None)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, not atomically, and flush it to the disk."""
    path.write_text(text, encoding="utf-8")
    flush(path)


def flush(path: Path) -> None:
    """Flush a file or directory to the disk with fsync."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, write: Callable[[Path], None], *, needed_bytes: int = 0) -> None:
    """Let `write` fill a temporary file in the same folder, then rename the file to `path`.

    Raises StorageError and leaves `path` unchanged if the file cannot be written or renamed.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        require_space(path.parent, needed_bytes)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            write(temporary)
            temporary.replace(path)
            flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def require_space(directory: Path, needed_bytes: int) -> None:
    """Raise OSError (ENOSPC) if the file system of `directory` has fewer than `needed_bytes` free."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise OSError(errno.ENOSPC, f"{needed_bytes / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the file, or into a DiskFullError if there is no room."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if is_full(error):
            advice = "free some space; what was written before is intact"
            raise DiskFullError(f"{path}: cannot be written ({reason}); {advice}") from error
        raise StorageError(f"{path}: cannot be written ({reason}); what was written before is intact") from error
