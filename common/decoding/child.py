"""Runs the child process that decodes a Parquet file, and repeats this with smaller batches after a lack of memory.

    for frame in decode_column(path, "text"):
        ...                                # SCHEMA, then TEXTS; may raise DecodingFailed

The child receives only the environment variables that it needs. The contents of the frames are defined in `frames`.
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

from common.decoding.frames import DONE, ERROR, HEADER, SCHEMA, DecodingFailure, Frame

ROOT: Final = Path(__file__).resolve().parent.parent.parent
BATCHES: Final = (1024, 32, 1)
"""Largest number of rows per batch at the first, second and last attempt."""
SILENCE_SECONDS = 60.0
"""Seconds without output after which decoding fails."""
_PASSED_VARIABLES = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR", "SYSTEMROOT")
_SET_VARIABLES = {
    # The system's allocator with a single heap. Other allocators, and one heap per thread, reserve far more memory than
    # they use, and reserved memory counts against the memory limit.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class DecodingFailed(Exception):
    """The file could not be decoded. `failure` describes the reason."""

    def __init__(self, failure: DecodingFailure) -> None:
        super().__init__(failure["reason"])
        self.failure = failure


def can_decode() -> bool:
    """Return whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def decode_column(path: Path, column: str) -> Iterator[Frame]:
    """Yield a frame with the schema and, if `column` holds text, frames with its texts.

    Raises DecodingFailed if the file cannot be decoded. Closing the generator ends the child.
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
            # If no schema was received, reading the footer already took too much memory, so smaller batches do not
            # help.
            if error.failure["kind"] != "memory" or not announced or most_rows == BATCHES[-1]:
                error.failure["row"] = max(row, error.failure["row"])
                raise


def _run(path: Path, column: str, first_row: int, most_rows: int) -> Iterator[Frame]:
    request = json.dumps({"column": column, "first_row": first_row, "most_rows": most_rows})
    command = [sys.executable, "-m", "common.decoding.parquet", str(path.absolute()), request]
    environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd=ROOT,
        env={**environment, **_SET_VARIABLES},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        while True:
            frame = _read_frame(child.stdout)
            if frame is None:
                raise DecodingFailed(_failure_of_exit(child.wait()))
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


def _failure_of_exit(status: int) -> DecodingFailure:
    """Return the failure of a child that ended without an ERROR or DONE frame."""
    # When memory runs out, pyarrow's footer parser aborts, or the kernel kills the process.
    memory = status in (-signal.SIGABRT, -signal.SIGKILL)
    return DecodingFailure(
        kind="memory" if memory else "damaged", reason=f"the decoder ended with status {status}", row=0
    )


def _read_frame(pipe: IO[bytes]) -> Frame | None:
    """Return the next frame; None if the child's output ends, even within a frame."""
    header = _read_exactly(pipe, HEADER.size)
    if header is None:
        return None
    kind, rows, size = HEADER.unpack(header)
    payload = _read_exactly(pipe, size)
    return None if payload is None else Frame(kind, rows, payload)


def _read_exactly(pipe: IO[bytes], size: int) -> bytearray | None:
    poller = select.poll()  # select.select does not accept descriptors above 1,023
    poller.register(pipe, select.POLLIN)
    received = bytearray(size)
    done = 0
    with memoryview(received) as view:
        while done < size:
            if not poller.poll(1000 * SILENCE_SECONDS):
                reason = f"nothing was decoded for {SILENCE_SECONDS:g} s"
                raise DecodingFailed(DecodingFailure(kind="damaged", reason=reason, row=0))
            count = os.readv(pipe.fileno(), [view[done:]])
            if not count:
                return None
            done += count
    return received
