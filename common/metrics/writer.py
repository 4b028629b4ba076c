"""Writes the metrics of a training to disk and to Redis, without slowing or stopping the training.

`add` appends to a deque and returns. A thread writes the waiting points every 200 ms; a point that arrives after a
pause is written within 25 ms. The thread appends the points to JSONL segments (the archive,
`<experiment>/metrics/<kind>-<attempt>-<n>.jsonl`, a new segment after 30 s or 1 MiB), sends the same lines to the Redis
stream of the experiment, and updates the index of the archive. If Redis is unavailable, only the archive is written;
later the stream continues from the last position that Redis acknowledged. If the disk is full, a bounded number of
points waits in memory; when there are more, the oldest are dropped and counted. A line is `{"step", "time", "attempt",
"values"}`, or `{"rewind": {"attempt", "step"}}` at the start of a resumed attempt. `common.metrics.table` reads the
archive.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import redis

from common.disk import is_full
from common.logging import get_logger
from common.metrics.event_file import EventFile
from common.metrics.index import MetricIndex
from common.metrics.segments import Segments
from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect
from common.redis.shipper import StreamEntry, StreamShipper
from tidal_client.vocabulary import utc_text

log = get_logger(__name__)

FLUSH_SECONDS = 0.2
"""Approximate seconds between two flushes while points keep arriving."""
CHECKS_PER_FLUSH = 8
"""Number of checks for new points per `flush_seconds`. A point that arrives after a pause is written at the next
check."""
SEGMENT_SECONDS = 30.0
SEGMENT_BYTES = 1024 * 1024
MAX_WAITING = 200_000
"""Largest number of points that are kept in memory while the disk is full."""
CLOSE_SECONDS = 3.0
"""Longest time in seconds that `close` waits for Redis."""

_Point = tuple[str, int, float, Mapping[str, float] | None]
"""Kind, step, seconds since 1970, and values, which are None for a rewind."""


class MetricsWriter:
    """Receives the metrics of one attempt. All methods may be called from any thread.

    `directory` is the experiment's folder. Without `redis_url` only the archive is written. `event_file` also receives
    all points; its errors have no effect on the archive.
    """

    def __init__(
        self,
        directory: Path,
        redis_url: str | None,
        experiment_id: str,
        job_id: str,
        attempt: int,
        *,
        stream_max_length: int = 20_000,
        event_file: EventFile | None = None,
        flush_seconds: float = FLUSH_SECONDS,
        segment_seconds: float = SEGMENT_SECONDS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.job_id = job_id
        self._attempt = attempt
        self._event_file = event_file
        self._flush_seconds = flush_seconds
        self._waiting: deque[_Point] = deque(maxlen=MAX_WAITING)
        self._segments = {
            kind: Segments(directory / "metrics", kind, attempt, segment_seconds, segment_bytes)
            for kind in keys.METRIC_KINDS
        }
        self._shippers: dict[str, StreamShipper] = {}
        self._client: redis.Redis | None = None
        self._reported_dropped = 0
        """Number of dropped points that have been added to the counter in Redis."""
        if redis_url is not None:
            self._client = connect(redis_url, WORKER_COMMANDS)
            stream = [keys.experiment_stream(experiment_id)]
            for kind in keys.METRIC_KINDS:
                render = _Renderer(kind)
                self._shippers[kind] = StreamShipper(
                    connect(redis_url, WORKER_COMMANDS), stream, render, max_length=stream_max_length
                )
        self._indexes = {kind: MetricIndex(directory, kind) for kind in keys.METRIC_KINDS}
        self._indexed = dict.fromkeys(keys.METRIC_KINDS, 1)
        """{kind: number of segments of this kind when its index was last updated}."""
        self._stream_behind = False
        """Whether the archive has lines that were not yet sent to the Redis streams."""
        self._disk_failed = False
        self._refusal: str | None = None
        """Error of the last write if the disk was full; None after a successful write."""
        self._added = 0
        self._dequeued = 0
        self._written = 0
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Add one point of `kind` ("metrics" or "rl-metrics"). Never blocks on disk or network.

        Raises ValueError for any other kind.
        """
        if kind not in self._segments:
            raise ValueError(f"metrics of kind {kind!r} do not exist; use one of {', '.join(self._segments)}")
        self._added += 1
        point = (kind, step, time.time(), dict(values))
        self._waiting.append(point)
        if self._event_file is not None:
            self._event_file.add(*point[1:])

    def rewind(self, step: int) -> None:
        """Record that this attempt resumes after `step`. Later steps of earlier attempts are then no longer valid."""
        for kind in self._segments:
            self._added += 1
            self._waiting.append((kind, step, time.time(), None))
        if self._event_file is not None:
            self._event_file.add(step, time.time(), None)

    def flush(self) -> bool:
        """Write all points added so far to disk; call this before a checkpoint becomes visible.

        Returns False after an error of the disk; points that could not be written stay in memory.
        """
        with self._flushing:
            return self._archive_waiting() and self._sync()

    @property
    def refusal(self) -> str | None:
        """Error of the last write if the disk was full and the newest points are only in memory; otherwise None."""
        return self._refusal

    @property
    def dropped(self) -> int:
        """Number of points that were lost because the disk was full for too long."""
        return max(0, self._added - self._dequeued - len(self._waiting))

    @property
    def written(self) -> int:
        """Number of points (and rewinds) that this attempt has written to the archive."""
        return self._written

    def close(self) -> None:
        """End the thread; write and send all points. Waits at most three seconds for Redis. May be called twice."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + CLOSE_SECONDS
        self._flush(force=True)
        while not self._ship(force=True) and time.monotonic() < deadline:
            time.sleep(0.1)
        for segments in self._segments.values():
            with contextlib.suppress(OSError):
                segments.close()
        for index in self._indexes.values():
            index.extend()
        self._report_dropped()
        if self._event_file is not None:
            self._event_file.close()
        if self._client is not None:
            self._client.close()
        for shipper in self._shippers.values():
            shipper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        flushed_at = time.monotonic()
        while not self._stop.wait(self._flush_seconds / CHECKS_PER_FLUSH):
            now = time.monotonic()
            copying = self._event_file is not None and self._event_file.is_behind
            if not (self._waiting or self._stream_behind or copying) or now - flushed_at < self._flush_seconds * (
                1 - 1 / CHECKS_PER_FLUSH
            ):
                continue
            flushed_at = now
            try:
                self._flush()
                self._stream_behind = False
                self._stream_behind = not self._ship()
                self._update_indexes()
                self._report_dropped()
                if self._event_file is not None:
                    self._event_file.write()
            except Exception:
                log.exception("metrics could not be written")

    def _flush(self, *, force: bool = False) -> None:
        """Move the waiting points to the archive. After a disk error they stay in memory, or are dropped if `force`."""
        with self._flushing:
            self._archive_waiting(last_try=force)

    def _archive_waiting(self, *, last_try: bool = False) -> bool:
        """Move the waiting points to the archive; return whether all of them were written."""
        points: list[_Point] = []
        while self._waiting:
            points.append(self._waiting.popleft())
        self._dequeued += len(points)
        complete = True
        for kind, segments in self._segments.items():
            points_of_kind = [point for point in points if point[0] == kind]
            if not points_of_kind:
                continue
            try:
                segments.append(b"".join(self._line(point) for point in points_of_kind))
                self._stream_behind = True
                self._written += len(points_of_kind)
                self._disk_failed, self._refusal = False, None
            except OSError as error:
                complete = False
                self._put_back(points_of_kind, error, last_try=last_try)
        return complete

    def _sync(self) -> bool:
        try:
            for segments in self._segments.values():
                segments.sync()
        except OSError as error:
            log.error("metrics could not be flushed to the disk", error=str(error))
            return False
        return True

    def _put_back(self, points: list[_Point], error: OSError, *, last_try: bool) -> None:
        if not self._disk_failed:
            log.error("metrics cannot be written and stay in memory", error=str(error), points=len(points))
        self._disk_failed, self._refusal = True, (error.strerror or str(error)) if is_full(error) else None
        self._dequeued -= len(points)
        if not last_try:
            free_places = max(0, MAX_WAITING - len(self._waiting))
            self._waiting.extendleft(reversed(points[len(points) - min(free_places, len(points)) :]))

    def _ship(self, *, force: bool = False) -> bool:
        """Send new lines to the Redis streams; return whether all lines were sent."""
        done = [shipper.ship(self._segments[kind].paths, force=force) for kind, shipper in self._shippers.items()]
        return all(done)

    def _report_dropped(self) -> None:
        """Add newly dropped points to the counter that the HTTP API shows.

        If Redis does not answer, the next flush tries again.
        """
        new = self.dropped - self._reported_dropped
        if new > 0 and self._client is not None:
            with contextlib.suppress(redis.RedisError):
                self._client.hincrby(keys.COUNTERS, keys.METRICS_DROPPED, new)
                self._reported_dropped += new

    def _update_indexes(self) -> None:
        """Add closed segments to the indexes, so that no reader has to parse the whole archive of a long training."""
        for kind, segments in self._segments.items():
            if len(segments.paths) > self._indexed[kind]:
                self._indexed[kind] = len(segments.paths)
                self._indexes[kind].extend()

    def _line(self, point: _Point) -> bytes:
        _, step, added_at, values = point
        if values is None:
            return json.dumps({"rewind": {"attempt": self._attempt, "step": step}}).encode() + b"\n"
        stamp = utc_text(datetime.fromtimestamp(added_at, UTC), "milliseconds")
        finite = {name: _finite_or_none(value) for name, value in values.items()}
        return (
            json.dumps({"step": step, "time": stamp, "attempt": self._attempt, "values": finite}, separators=(",", ":"))
            + "\n"
        ).encode()


def _finite_or_none(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON cannot express; charts show a gap there."""
    number = float(value)
    return number if math.isfinite(number) else None


class _Renderer:
    """Converts lines of the archive to stream entries: many points per entry, each rewind in its own entry."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, lines: list[bytes], first: int) -> list[StreamEntry]:
        entries: list[StreamEntry] = []
        points: list[str] = []
        for line in lines:
            text = line.decode().rstrip("\n")
            if text.startswith('{"rewind"'):
                entries.extend(self._batch(points))
                points = []
                entries.append((keys.EVENT_REWIND, json.dumps({"kind": self._kind, **json.loads(text)["rewind"]})))
            else:
                points.append(text)
        entries.extend(self._batch(points))
        return entries

    def _batch(self, points: list[str]) -> list[StreamEntry]:
        return [(self._kind, '{"points":[' + ",".join(points) + "]}")] if points else []
