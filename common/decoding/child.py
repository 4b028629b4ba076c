"""Starts the child, takes its frames, and starts it again with smaller batches where it ran out of memory.

    for frame in decode(path, "text"):
        ...                                # SCHEMA, then TEXTS; DecodingFailed

The child sees nothing of this process's environment that it does not need. Leaves out what the frames hold (`frames`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from common.decoding.frames import DONE, ERROR, HEADER, SCHEMA, Failure, Frame

ROOT: Final = Path(__file__).resolve().parent.parent.parent
BATCHES: Final = (1024, 32, 1)
"""Rows at once, at the first, second and last try."""
SILENCE_SECONDS = 60.0
"""A child that decodes and sends nothing for so long is given up."""
_KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "SYSTEMROOT")
_OWN = {
    # The other allocators, and a heap per thread, reserve far more than they use, and the limit counts it.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class DecodingFailed(Exception):
    """`failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure["reason"])
        self.failure = failure


def can_decode() -> bool:
    """Whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def decode(path: Path, column: str) -> Iterator[Frame]:
    """The schema, and the texts of `column` where it holds text. DecodingFailed.

    A generator that is closed ends the child.
    """
    row, announced = 0, False
    for most_rows in BATCHES:
        try:
            for frame in _run(path, column, row, most_rows):
                if frame.kind == SCHEMA:
                    if announced:
                        continue
                    announced = True
                row += frame.rows
                yield frame
            return
        except DecodingFailed as error:
            # Before the schema it was the table of contents, which does not come in batches.
            if error.failure["kind"] != "memory" or not announced or most_rows == BATCHES[-1]:
                error.failure["row"] = max(row, error.failure["row"])
                raise


def _run(path: Path, column: str, first_row: int, most_rows: int) -> Iterator[Frame]:
    request = json.dumps({"column": column, "first_row": first_row, "most_rows": most_rows})
    command = [sys.executable, "-m", "common.decoding.parquet", str(path.absolute()), request]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd=ROOT,
        env={**environment, **_OWN},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        while True:
            frame = _next(child.stdout)
            if frame is None:
                raise DecodingFailed(_ending(child.wait()))
            if frame.kind == DONE:
                return
            if frame.kind == ERROR:
                raise DecodingFailed(json.loads(frame.payload))
            yield frame
    finally:
        child.kill()
        child.stdin.close()
        child.stdout.close()
        child.wait()


def _ending(status: int) -> Failure:
    """Of a child that did not say how it ended."""
    # pyarrow aborts where its parser of the table of contents finds no memory; the kernel kills.
    memory = status in (-signal.SIGABRT, -signal.SIGKILL)
    return Failure(kind="memory" if memory else "damaged", reason=f"the decoder ended with status {status}", row=0)


def _next(pipe: IO[bytes]) -> Frame | None:
    """The next frame; None at the end, also within one."""
    header = _exactly(pipe, HEADER.size)
    if header is None:
        return None
    kind, rows, size = HEADER.unpack(header)
    payload = _exactly(pipe, size)
    return None if payload is None else Frame(kind, rows, payload)


def _exactly(pipe: IO[bytes], size: int) -> bytearray | None:
    waiting = select.poll()  # select.select takes no descriptor above 1,023
    waiting.register(pipe, select.POLLIN)
    taken = bytearray(size)
    done = 0
    with memoryview(taken) as view:
        while done < size:
            if not waiting.poll(1000 * SILENCE_SECONDS):
                reason = f"nothing was decoded for {SILENCE_SECONDS:g} s"
                raise DecodingFailed(Failure(kind="damaged", reason=reason, row=0))
            count = os.readv(pipe.fileno(), [view[done:]])
            if not count:
                return None
            done += count
    return taken
