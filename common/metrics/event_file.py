"""Writes the metrics of a training as TensorBoard event files in `<experiment>/tensorboard_logs`.

`tensorboard --logdir experiments/<id>/tensorboard_logs` shows them. The names of the metrics are the tags. The archive
of `common.metrics.writer` is complete. Event files are a copy for other tools: when a trainer is killed, their last
seconds may be lost, and while the disk is full, points are dropped. `MetricsWriter` calls `add`, which only appends to
a deque, in the training's threads, and `write` in its own thread. tensorboardX is imported at the first write (0.07 s,
5 MB), so the start of a training does not wait for the import.

Every attempt writes its own files. A resumed attempt first writes a record "session start" with the step after its
checkpoint; TensorBoard then hides the points of earlier attempts from this step on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.logging import get_logger

log = get_logger(__name__)

FOLDER = "tensorboard_logs"
MAX_WAITING = 20_000
"""Largest number of points that wait to be written. When there are more, the oldest are dropped."""
FILE_VERSION = "brain.Event:2"
"""Version of the format; from version 2 on, TensorBoard respects the records "session start"."""
FLUSH_SECONDS = 5.0
"""Seconds between two flushes to the disk."""
RETRY_SECONDS = 30.0
"""Seconds after a failed write until a new file is begun. The points in between are dropped."""

_Point = tuple[int, float, Mapping[str, float] | None]
"""Step, seconds since 1970, and values, which are None for a rewind."""


class EventFile:
    """The event files of one attempt. Only one thread may call `write` and `close`; `add` may be called from any."""

    def __init__(self, directory: Path, attempt: int) -> None:
        self._directory = directory.absolute() / FOLDER
        self._attempt = attempt
        self._waiting: deque[_Point] = deque(maxlen=MAX_WAITING)
        self._records: Any = None
        self._files = 0
        self._flushed_at = 0.0
        self._unflushed = False
        self._retry_at = 0.0
        self._failed = False
        self._missing = False

    @property
    def is_behind(self) -> bool:
        """Return whether there are points to write or to flush."""
        return bool(self._waiting) or self._unflushed

    def add(self, step: int, seconds: float, values: Mapping[str, float] | None) -> None:
        """Add the values of a step; None means that the attempt resumes after `step`. Never blocks."""
        self._waiting.append((step, seconds, values))

    def write(self, *, flush: bool = False) -> None:
        """Write the waiting points. After an error they are dropped; only the first error is logged.

        The file is flushed to the disk every few seconds, and always with `flush`.
        """
        points = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self._missing or time.monotonic() < self._retry_at:
            return
        try:
            self._write(points)
            if self._unflushed and (flush or time.monotonic() - self._flushed_at >= FLUSH_SECONDS):
                self._records.flush()
                self._flushed_at, self._unflushed = time.monotonic(), False
        except ImportError as error:
            self._missing = True
            log.warning("TensorBoard files are not written, because tensorboardX is missing", error=str(error))
        except Exception as error:  # a copy for other tools must never end a training
            if not self._failed:
                log.warning("TensorBoard files cannot be written; some points are missing in them", error=str(error))
            self._failed, self._retry_at = True, time.monotonic() + RETRY_SECONDS
            self._drop_file()

    def close(self) -> None:
        """Write all points and close the file."""
        self.write(flush=True)
        self._drop_file()

    def _write(self, points: list[_Point]) -> None:
        if not points:
            return
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        if self._records is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files in the order of their names.
            name = f"events.out.tfevents.{int(time.time()):010d}.{self._attempt:04d}.{self._files:03d}"
            self._records = RecordWriter(str(self._directory / name))
            self._files += 1
            self._records.write(Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
        for step, seconds, values in points:
            event = Event(wall_time=seconds)
            if values is None:
                event.step = step + 1
                event.session_log.status = SessionLog.START
            else:
                event.step = step
                scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
                event.summary.value.extend(scalars)
            self._records.write(event.SerializeToString())
            self._unflushed = True

    def _drop_file(self) -> None:
        records, self._records, self._unflushed = self._records, None, False
        if records is not None:
            try:
                records.close()
            except OSError as error:
                log.debug("a TensorBoard file could not be closed", error=str(error))
