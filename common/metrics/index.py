"""The archive of metrics as columns: `metrics/<kind>.index`, a cache beside the segments; a chart opens at once.

Parsing a million lines takes seconds; reading their columns takes milliseconds. Blocks are appended once enough new
lines wait (`EXTEND_BYTES`), by the writer when it begins a new segment and by whoever reads; what is not in the index
yet is parsed each time, and that is little. The segments stay the truth: an index that is damaged, torn or covers more
than there is, is rebuilt from them, one that cannot be written is done without. Leaves out: which points count
(`common.metrics.table`).
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.logging import get_logger
from common.metrics.index_block import Block, parse_block, read_block, write_block

log = get_logger(__name__)

EXTEND_BYTES = 256 * 1024
"""Lines that wait before a block of them is written."""
BLOCK_BYTES = 1024 * 1024
"""Most lines in one block, in bytes: what building an index holds in memory."""


class MetricIndex:
    """The index of one kind of metrics of the experiment in folder `experiment`. Use from one thread.

    Never raises for reasons of the index: without one the archive is parsed.
    """

    def __init__(self, experiment: Path, kind: str) -> None:
        self._folder = experiment / "metrics"
        self._path = self._folder / f"{kind}.index"
        self._kind = kind
        self._covered: dict[str, int] = {}
        self._good = 0
        """Bytes of the file that hold good blocks."""
        self._size = 0
        """Bytes of the file when it was read."""

    def blocks(self, names: Collection[str] | None = None) -> Iterator[Block]:
        """Every point, attempts mixed, of one attempt in order; only the columns in `names`, None for all."""
        yield from self._indexed(names)
        with self._appending(wanted=self._waiting() >= EXTEND_BYTES or self._good < self._size) as keep:
            for block in self._beyond():
                keep(block)
                yield block

    def extend(self) -> None:
        """Bring lines into the index when EXTEND_BYTES of them wait."""
        try:
            if self._path.stat().st_size != self._good:
                deque(self._indexed(()), maxlen=0)
        except OSError:
            self._covered, self._good, self._size = {}, 0, 0
        if self._waiting() >= EXTEND_BYTES:
            with self._appending(wanted=True) as keep:
                for block in self._beyond():
                    keep(block)

    def _indexed(self, names: Collection[str] | None) -> Iterator[Block]:
        self._covered, self._good, self._size = {}, 0, 0
        sizes = {segment.name: end for segment, end in _segments(self._folder, self._kind)}
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            self._size = os.fstat(file.fileno()).st_size
            while (block := read_block(file, names)) is not None:
                if any(sizes.get(name, 0) < end for name, end in block.covers.items()):
                    return  # of an archive that has been cut since
                self._covered |= block.covers
                self._good = file.tell()
                yield block

    def _waiting(self) -> int:
        """Bytes of the archive beyond the index."""
        return sum(end - self._covered.get(path.name, 0) for path, end in _segments(self._folder, self._kind))

    def _beyond(self) -> Iterator[Block]:
        """What the index leaves out, in blocks of about BLOCK_BYTES and one attempt."""
        lines: list[bytes] = []
        covers: dict[str, int] = {}
        attempt, size = 0, 0
        for path, end in _segments(self._folder, self._kind):
            at = self._covered.get(path.name, 0)
            if end <= at:
                continue
            if lines and _order(path)[0] != attempt:
                yield parse_block(attempt, covers, lines)
                lines, covers, size = [], {}, 0
            attempt = _order(path)[0]
            with path.open("rb") as file:
                file.seek(at)
                while found := file.readlines(BLOCK_BYTES):
                    torn = not found[-1].endswith(b"\n")
                    if torn:
                        found.pop()
                    read = sum(map(len, found))
                    at, size, lines = at + read, size + read, lines + found
                    covers[path.name] = at
                    if size >= BLOCK_BYTES:
                        yield parse_block(attempt, covers, lines)
                        lines, covers, size = [], {}, 0
                    if torn:
                        break  # its end may be written meanwhile
        if lines:
            yield parse_block(attempt, covers, lines)

    @contextmanager
    def _appending(self, *, wanted: bool) -> Iterator[Callable[[Block], None]]:
        """A function that writes a block behind the good ones; it does nothing where that cannot be done."""
        file = self._open() if wanted else None

        def keep(block: Block) -> None:
            nonlocal file
            if file is not None:
                try:
                    file.write(write_block(block))
                    file.flush()
                    self._covered |= block.covers
                    self._good = self._size = file.tell()
                except OSError as error:
                    log.warning("index of metrics not written", path=str(self._path), error=str(error))
                    file.close()
                    file = None

        try:
            yield keep
        finally:
            if file is not None:
                file.close()

    def _open(self) -> BinaryIO | None:
        """The file, cut behind its good blocks and locked; None when somebody else is at it or it cannot be written."""
        file: BinaryIO | None = None
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_size == self._size:
                if self._good < self._size:
                    log.warning("index of metrics damaged, rebuilding it", path=str(self._path), kept=self._good)
                    file.truncate(self._good)
                file.seek(self._good)
                return file
        except BlockingIOError:
            pass
        except OSError as error:
            log.warning("index of metrics not written", path=str(self._path), error=str(error))
        if file is not None:
            file.close()
        return None


def _segments(folder: Path, kind: str) -> list[tuple[Path, int]]:
    """The segments of `kind` and their sizes, in order."""
    found: list[tuple[Path, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(f"{kind}-") and entry.name.endswith(".jsonl"):
                    found.append((Path(entry.path), entry.stat().st_size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda item: _order(item[0]))


def _order(path: Path) -> tuple[int, int]:
    _, attempt, number = path.stem.rsplit("-", 2)
    return int(attempt), int(number)
