"""Replies on disk: one file per key, named by the SHA-256 of the key. The file contains the key, which is checked.

A file that is damaged, or belongs to another key, counts as missing. If the folder cannot be written, `problem` has the
reason, and the tools report it with their results. The cache does not decide what to store; `caching_transport` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LARGEST_CACHE_BYTES = 256 * 1024 * 1024
"""When the files are larger together, the oldest are deleted until they have at most half of this size."""
KEPT_SECONDS = 24 * 3600.0
"""A file that is older counts as missing, because names, tags and files of a completed experiment can still change."""


@dataclass(frozen=True)
class CachedReply:
    """A stored reply with status 200."""

    content_type: str
    body: bytes


class DiskCache:
    """A cache in one folder, which several processes may share."""

    def __init__(
        self,
        folder: Path,
        *,
        largest_bytes: int = LARGEST_CACHE_BYTES,
        kept_seconds: float = KEPT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.problem: str | None = None
        """Why the folder cannot be written; None if the last attempt succeeded."""
        self._largest_bytes = largest_bytes
        self._kept_seconds = kept_seconds
        self._now = now
        self._written: int | None = None
        self._check()

    def get(self, key: str) -> CachedReply | None:
        """Return the reply that was stored for `key`, or None."""
        path = self._path(key)
        try:
            if self._now() - path.stat().st_mtime > self._kept_seconds:
                return None
            head, _, body = path.read_bytes().partition(b"\n")
            found = json.loads(head)
            if found["key"] != key or found["size"] != len(body):
                return None
            return CachedReply(str(found["contentType"]), body)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, reply: CachedReply) -> None:
        """Store a reply. Sets `problem` if that is impossible."""
        head = json.dumps({"key": key, "size": len(reply.body), "contentType": reply.content_type}).encode()
        try:
            self._write(self._path(key), head + b"\n" + reply.body)
        except OSError as error:
            self._report(error)
        else:
            self.problem = None
            self._limit_size(len(head) + 1 + len(reply.body))

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.reply"

    def _check(self) -> None:
        """Write and delete a file, so that a problem is known from the start."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".check-"):
                pass
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError) -> None:
        self.problem = (
            f"the cache {self.folder} cannot be written ({error.strerror or error}), so every call asks the api; "
            "choose a folder with --cache-dir"
        )

    def _write(self, path: Path, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise

    def _limit_size(self, added: int) -> None:
        if self._written is not None:
            self._written += added
            if self._written <= self._largest_bytes:
                return
        files = []
        for path in self.folder.glob("*.reply"):
            with contextlib.suppress(OSError):  # another process may have deleted it
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in files)
        if total > self._largest_bytes:
            for _, size, path in sorted(files):
                if total <= self._largest_bytes // 2:
                    break
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
        self._written = total
