"""The index of a metrics archive, `metrics/<kind>.index`: a cache that holds the points of the segments as columns.

Parsing a million lines takes seconds, reading their columns takes milliseconds. When at least `EXTEND_BYTES` of lines
are not in the index yet, a block with their points is appended: by the writer when it begins a new segment, or by the
next reader. Readers parse the lines that are not in the index. Only the segments are authoritative. If the index is
damaged, incomplete, or covers more than the segments, it is rebuilt from them. If the index cannot be written, every
reader parses the lines. `common.metrics.table` decides which points are valid.
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
"""Size in bytes that the lines outside the index must reach before a block is written."""
BLOCK_BYTES = 1024 * 1024
"""Size in bytes of the lines of one block. The memory needed to build an index is proportional to this size."""


class MetricIndex:
    """The index of one kind of metrics of the experiment in the folder `experiment`. Use it from one thread.

    Errors of the index are never raised; the archive is then parsed instead.
    """

    def __init__(self, experiment: Path, kind: str) -> None:
        self._folder = experiment / "metrics"
        self._path = self._folder / f"{kind}.index"
        self._kind = kind
        self._covered: dict[str, int] = {}
        """{segment name: offset in bytes up to which its lines are in the index}."""
        self._valid_bytes = 0
        """Size of the valid blocks at the beginning of the file, in bytes."""
        self._size = 0
        """Size of the file in bytes when it was read."""

    def blocks(self, names: Collection[str] | None = None) -> Iterator[Block]:
        """Yield all points with the columns `names` (None means all columns); append missing blocks to the index.

        The blocks of one attempt are in the order of the archive; blocks of different attempts may alternate.
        """
        yield from self._indexed_blocks(names)
        wanted = self._unindexed_bytes() >= EXTEND_BYTES or self._valid_bytes < self._size
        with self._appending(wanted=wanted) as append:
            for block in self._unindexed_blocks():
                append(block)
                yield block

    def extend(self) -> None:
        """Append blocks to the index if at least EXTEND_BYTES of lines are not in it."""
        try:
            if self._path.stat().st_size != self._valid_bytes:
                deque(self._indexed_blocks(()), maxlen=0)
        except OSError:
            self._covered, self._valid_bytes, self._size = {}, 0, 0
        if self._unindexed_bytes() >= EXTEND_BYTES:
            with self._appending(wanted=True) as append:
                for block in self._unindexed_blocks():
                    append(block)

    def _indexed_blocks(self, names: Collection[str] | None) -> Iterator[Block]:
        self._covered, self._valid_bytes, self._size = {}, 0, 0
        sizes = {segment.name: end for segment, end in _segments(self._folder, self._kind)}
        try:
            file = self._path.open("rb")
        except OSError:
            return
        with file:
            self._size = os.fstat(file.fileno()).st_size
            while (block := read_block(file, names)) is not None:
                if any(sizes.get(name, 0) < end for name, end in block.covers.items()):
                    return  # a segment is shorter than it was when the block was written
                self._covered |= block.covers
                self._valid_bytes = file.tell()
                yield block

    def _unindexed_bytes(self) -> int:
        """Return the size of the lines that are not in the index, in bytes."""
        return sum(end - self._covered.get(path.name, 0) for path, end in _segments(self._folder, self._kind))

    def _unindexed_blocks(self) -> Iterator[Block]:
        """Yield the points that are not in the index. A block has about BLOCK_BYTES of lines, all of one attempt."""
        lines: list[bytes] = []
        covers: dict[str, int] = {}
        attempt, size = 0, 0
        for path, end in _segments(self._folder, self._kind):
            at = self._covered.get(path.name, 0)
            if end <= at:
                continue
            if lines and _attempt_and_number(path)[0] != attempt:
                yield parse_block(attempt, covers, lines)
                lines, covers, size = [], {}, 0
            attempt = _attempt_and_number(path)[0]
            with path.open("rb") as file:
                file.seek(at)
                while new_lines := file.readlines(BLOCK_BYTES):
                    incomplete = not new_lines[-1].endswith(b"\n")
                    if incomplete:
                        new_lines.pop()
                    read = sum(map(len, new_lines))
                    at, size, lines = at + read, size + read, lines + new_lines
                    covers[path.name] = at
                    if size >= BLOCK_BYTES:
                        yield parse_block(attempt, covers, lines)
                        lines, covers, size = [], {}, 0
                    if incomplete:
                        break  # the writer may complete this line at any time
        if lines:
            yield parse_block(attempt, covers, lines)

    @contextmanager
    def _appending(self, *, wanted: bool) -> Iterator[Callable[[Block], None]]:
        """Yield a function that appends a block to the index.

        The function does nothing if `wanted` is false, or after a write has failed.
        """
        file = self._open() if wanted else None

        def append(block: Block) -> None:
            nonlocal file
            if file is not None:
                try:
                    file.write(write_block(block))
                    file.flush()
                    self._covered |= block.covers
                    self._valid_bytes = self._size = file.tell()
                except OSError as error:
                    log.warning("the index of the metrics could not be written", path=str(self._path), error=str(error))
                    file.close()
                    file = None

        try:
            yield append
        finally:
            if file is not None:
                file.close()

    def _open(self) -> BinaryIO | None:
        """Open and lock the file, and cut it after its valid blocks.

        Returns None if another process has locked or changed the file, or if the file cannot be written.
        """
        file: BinaryIO | None = None
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_size == self._size:
                if self._valid_bytes < self._size:
                    log.warning(
                        "the index of the metrics is damaged and is rebuilt",
                        path=str(self._path),
                        kept_bytes=self._valid_bytes,
                    )
                    file.truncate(self._valid_bytes)
                file.seek(self._valid_bytes)
                return file
        except BlockingIOError:
            pass
        except OSError as error:
            log.warning("the index of the metrics could not be written", path=str(self._path), error=str(error))
        if file is not None:
            file.close()
        return None


def _segments(folder: Path, kind: str) -> list[tuple[Path, int]]:
    """Return the segments of `kind` and their sizes in bytes, sorted by attempt and number."""
    found: list[tuple[Path, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(f"{kind}-") and entry.name.endswith(".jsonl"):
                    found.append((Path(entry.path), entry.stat().st_size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda item: _attempt_and_number(item[0]))


def _attempt_and_number(path: Path) -> tuple[int, int]:
    _, attempt, number = path.stem.rsplit("-", 2)
    return int(attempt), int(number)
