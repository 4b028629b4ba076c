"""The decoding child: `python -m common.decoding.parquet PATH REQUEST` writes frames to stdout.

REQUEST is JSON with `column`, `first_row` (where to begin) and `most_rows` (rows per batch). After loading its
libraries, the child may use MEMORY_BYTES more memory. The child exits when its standard input is closed, because its
parent has then died. Needs pyarrow.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.decoding.frames import (
    DONE,
    ERROR,
    FRAME_BYTES,
    HEADER,
    MEMORY_BYTES,
    MOST_TEXT_BYTES,
    NULL,
    SCHEMA,
    TEXTS,
    DecodingFailure,
)
from common.decoding.memory import limit_memory

BATCH_BYTES = 8 * 1024 * 1024
"""Intended number of bytes of text per batch. The rows per batch are computed from sizes in the file, which may be
wrong."""
BUFFER_BYTES = 1 << 20


def main() -> None:
    """Send the schema, the texts of the column, and then an ERROR or DONE frame."""
    path, request = sys.argv[1], json.loads(sys.argv[2])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keep output of libraries out of the frames
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import pyarrow as pa
    import pyarrow.parquet as pq  # imported before `limit_memory`, so that its own memory does not count

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    limit_memory(MEMORY_BYTES)
    try:
        # The defaults would load the whole column of a row group, possibly of the whole file, into memory.
        with pq.ParquetFile(Path(path), pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            _send_column(out, file, request["column"], request["first_row"], request["most_rows"])
    except MemoryError as error:  # includes pyarrow's ArrowMemoryError
        _send_failure(out, "memory", error)
    except BrokenPipeError:
        return  # raised if the reader has closed the pipe
    except _TooLongError as error:
        _send_failure(out, "long", error, error.row)
    except OSError as error:
        memory = error.errno is None and "bad_alloc" in str(error)
        _send_failure(
            out, "memory" if memory else "damaged" if error.errno is None else "system", error.strerror or error
        )
    except (pa.ArrowException, ValueError, OverflowError) as error:
        # pyarrow's footer parser reports a failed allocation as an ordinary error with the text "bad_alloc".
        _send_failure(out, "memory" if "bad_alloc" in str(error) else "damaged", error)
    else:
        _send(out, DONE, 0, b"")


def _send_column(out: BinaryIO, file: Any, field: str, first_row: int, most_rows: int) -> None:
    from common.decoding.arrow_types import describe_column

    schema = describe_column(file.schema_arrow, field)
    _send(out, SCHEMA, 0, json.dumps(schema).encode())
    if not schema["is_text"]:
        return
    leaf = next(index for index in range(len(file.schema)) if file.schema.column(index).path == field)
    row = 0
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        if row + metadata.num_rows <= first_row:
            row += metadata.num_rows
            continue
        rows = _batch_rows(metadata.num_rows, metadata.column(leaf).total_uncompressed_size, most_rows)
        batches = file.iter_batches(batch_size=rows, row_groups=[group], columns=[field], use_threads=False)
        for batch in batches:
            # `columns=["a"]` also selects columns whose names begin with "a.".
            column = batch.column(batch.schema.names.index(field))
            skipped = max(0, first_row - row)
            for count, lengths, texts in _frames(column.slice(skipped), row + skipped):
                _send(out, TEXTS, count, lengths, texts)
            row += batch.num_rows


def _batch_rows(rows: int, size: int, most_rows: int) -> int:
    """Return the rows per batch: `most_rows`, or fewer if the texts are long."""
    return max(1, min(most_rows, BATCH_BYTES * max(rows, 1) // max(size, 1)))


class _TooLongError(Exception):
    """A text is longer than MOST_TEXT_BYTES."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}")
        self.row = row


def _frames(column: Any, row: int) -> Iterator[tuple[int, bytes, memoryview]]:
    """Yield row count, lengths and texts in parts of about FRAME_BYTES. `row` is the number of the first row."""
    import numpy as np
    import pyarrow as pa

    texts = column.cast(pa.large_string())
    if texts.null_count:
        nulls = texts.is_null().to_numpy(zero_copy_only=False)
        texts = texts.fill_null("")  # the bytes of a null entry are undefined
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int64, count=len(texts) + 1, offset=8 * texts.offset)
    lengths = np.diff(offsets)
    if len(lengths) and lengths.max() > MOST_TEXT_BYTES:
        raise _TooLongError(row + int(lengths.argmax()))
    lengths = lengths.astype("<i4")
    if column.null_count:
        lengths[nulls] = NULL
    all_texts = memoryview(data if data is not None else b"").cast("B")
    start = 0
    while start < len(lengths):
        end = int(np.searchsorted(offsets, offsets[start] + FRAME_BYTES, side="right")) - 1
        end = min(max(end, start + 1), len(lengths))
        yield end - start, lengths[start:end].tobytes(), all_texts[offsets[start] : offsets[end]]
        start = end


def _send(out: BinaryIO, kind: bytes, rows: int, *parts: bytes | memoryview) -> None:
    out.write(HEADER.pack(kind, rows, sum(len(part) for part in parts)))
    for part in parts:
        out.write(part)
    out.flush()


def _send_failure(out: BinaryIO, kind: Any, reason: object, row: int = 0) -> None:
    failure = DecodingFailure(kind=kind, reason=" ".join(str(reason).split())[:200], row=row)
    _send(out, ERROR, 0, json.dumps(failure).encode())


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
