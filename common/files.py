"""Files written whole or not at all, on disk when the call returns; their digests.

A write goes to a temporary name beside the target, is flushed and renamed, so neither a crash nor a full disk leaves
half a file. Leaves out what is in the files; torch's own formats are in `common.checkpoint.files`.
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
"""Of a file or folder, in UTF-8: the limit of ext4, XFS, APFS and object stores' local mirrors."""
MOST_PATH_BYTES = 1024
"""Of a relative path; what the folder above it needs must fit into the 4,096 of Linux, too."""


def path_problem(name: str) -> str | None:
    """Why no file can have this name or relative path, whatever exists on the disk; None where one can.

    To ask before a text from outside becomes a path: the system's own answer would be an OSError or a ValueError.
    """
    if "\0" in name:
        return "holds a NUL character"
    try:
        parts = [part.encode("utf-8") for part in name.split("/")]
    except UnicodeEncodeError:
        return "holds half a surrogate pair, which is no character"
    if any(len(part) > MOST_NAME_BYTES for part in parts):
        return f"has a part of more than {MOST_NAME_BYTES} bytes, which no file can be called"
    if sum(map(len, parts)) + len(parts) > MOST_PATH_BYTES:
        return f"is longer than {MOST_PATH_BYTES} bytes"
    return None


def shortened(text: str, most: int = 80) -> str:
    """`text` in quotes for an error message, cut where it is long."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"


def sha256_of(path: Path, beat: Callable[[], None] | None = None) -> str:
    """SHA-256 of a file's bytes, hexadecimal; `beat` is called after every 16 MiB."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            if beat is not None:
                beat()
    return digest.hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Indented JSON in place, flushed to the disk. ValueError for NaN or infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of JSON; NaN and infinity, which other programs and older versions write, become None."""
    return json.loads(text, parse_constant=lambda _: None)


def write_text(path: Path, text: str) -> None:
    """UTF-8 in place, flushed to the disk."""
    path.write_text(text, encoding="utf-8")
    flush(path)


def flush(path: Path) -> None:
    """fsync of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, write: Callable[[Path], None], *, needed_bytes: int = 0) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; StorageError and no change where that fails."""
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
    """OSError (ENOSPC) when the file system of `directory` has less than `needed_bytes` free."""
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
