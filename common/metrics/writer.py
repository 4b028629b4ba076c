"""Metrics out of a training loop without slowing or stopping it.

`add` appends to a deque and returns. A writer thread takes what is there every 200 ms (a point that comes after a
pause, within 25), appends it to JSONL segments (the archive, `<experiment>/metrics/<kind>-<attempt>-<n>.jsonl`, a new
one after 30 s or 1 MiB), ships the same lines to the experiment's Redis stream and keeps the archive's index up to
date. Redis away: the archive goes on, the stream catches up from the last position that Redis acknowledged. Disk full:
points wait in memory, bounded, and are counted when they must be dropped. A line is `{"step", "time", "attempt",
"values"}`, or `{"rewind": {"attempt", "step"}}` at the start of a resumed attempt. Leaves out: reading
(`common.metrics.table`).
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
from common.metrics.index import MetricIndex
from common.metrics.segments import Segments
from common.redis import keys
from common.redis.client import WORKER_COMMANDS, connect
from common.redis.shipper import StreamEntry, StreamShipper
from tidal_client.vocabulary import utc_text

log = get_logger(__name__)

FLUSH_SECONDS = 0.2
"""From one flush to the next, about, while points keep coming."""
LOOKS_PER_FLUSH = 8
"""How often the thread looks for points in that time: a point that comes as seldom as that, or after a pause, waits for
the next look only."""
SEGMENT_SECONDS = 30.0
SEGMENT_BYTES = 1024 * 1024
MAX_WAITING = 200_000
"""Points kept in memory while the disk takes none."""
CLOSE_SECONDS = 3.0
"""What `close` gives an absent Redis."""

_Point = tuple[str, int, float, Mapping[str, float] | None]
"""Kind, step, seconds since 1970, values; None marks a rewind."""


class MetricsWriter:
    """Where a training puts its points; safe to call from any thread.

    `directory` is the experiment's folder. Without `redis_url` only the archive is written.
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
        flush_seconds: float = FLUSH_SECONDS,
        segment_seconds: float = SEGMENT_SECONDS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.job_id = job_id
        self._attempt = attempt
        self._flush_seconds = flush_seconds
        self._waiting: deque[_Point] = deque(maxlen=MAX_WAITING)
        self._segments = {
            kind: Segments(directory / "metrics", kind, attempt, segment_seconds, segment_bytes)
            for kind in keys.METRIC_KINDS
        }
        self._shippers: dict[str, StreamShipper] = {}
        self._client: redis.Redis | None = None
        self._told = 0
        """Dropped points that the counter in Redis holds."""
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
        """Segments there were when the index was brought up to date."""
        self._behind = False
        """The streams lack something that is in the archive."""
        self._disk_failed = False
        self._refusal: str | None = None
        """Why the disk was too full for the newest points; None after a successful write."""
        self._added = 0
        self._taken = 0
        self._written = 0
        self._flushing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One point of `kind` ("metrics" or "rl-metrics"); never blocks on disk or network.

        Raises ValueError for another kind: that is a mistake of the caller.
        """
        if kind not in self._segments:
            raise ValueError(f"metrics of kind {kind!r} do not exist; use one of {', '.join(self._segments)}")
        self._added += 1
        self._waiting.append((kind, step, time.time(), dict(values)))

    def rewind(self, step: int) -> None:
        """This attempt goes on after `step`: points of earlier attempts beyond it are void."""
        for kind in self._segments:
            self._added += 1
            self._waiting.append((kind, step, time.time(), None))

    def flush(self) -> bool:
        """Return when every point added so far is on disk: for the moment before a checkpoint becomes visible.

        False when the disk did not take them; they wait in memory then.
        """
        with self._flushing:
            return self._take() and self._sync()

    @property
    def refusal(self) -> str | None:
        """Why the disk was too full for the newest points, which stay in memory for the next try; otherwise None."""
        return self._refusal

    @property
    def dropped(self) -> int:
        """Points lost because the disk took none for too long."""
        return max(0, self._added - self._taken - len(self._waiting))

    @property
    def written(self) -> int:
        """Points in the archive."""
        return self._written

    def close(self) -> None:
        """Write and send everything; gives an absent Redis three seconds. May be called twice."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + CLOSE_SECONDS
        self._flush(force=True)
        while not self._shipped(force=True) and time.monotonic() < deadline:
            time.sleep(0.1)
        for segments in self._segments.values():
            with contextlib.suppress(OSError):
                segments.close()
        for index in self._indexes.values():
            index.extend()
        self._tell_dropped()
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
        while not self._stop.wait(self._flush_seconds / LOOKS_PER_FLUSH):
            now = time.monotonic()
            if not (self._waiting or self._behind) or now - flushed_at < self._flush_seconds * (
                1 - 1 / LOOKS_PER_FLUSH
            ):
                continue
            flushed_at = now
            try:
                self._flush()
                self._behind = False
                self._behind = not self._shipped()
                self._index()
                self._tell_dropped()
            except Exception:
                log.exception("metrics could not be written")

    def _flush(self, *, force: bool = False) -> None:
        """Move waiting points into the archive; on a disk error they wait on, unless this is the last try."""
        with self._flushing:
            self._take(last_try=force)

    def _take(self, *, last_try: bool = False) -> bool:
        """Whether the archive took all that waited."""
        points: list[_Point] = []
        while self._waiting:
            points.append(self._waiting.popleft())
        self._taken += len(points)
        whole = True
        for kind, segments in self._segments.items():
            mine = [point for point in points if point[0] == kind]
            if not mine:
                continue
            try:
                segments.append(b"".join(self._line(point) for point in mine))
                self._behind = True
                self._written += len(mine)
                self._disk_failed, self._refusal = False, None
            except OSError as error:
                whole = False
                self._keep(mine, error, last_try=last_try)
        return whole

    def _sync(self) -> bool:
        try:
            for segments in self._segments.values():
                segments.sync()
        except OSError as error:
            log.error("metrics could not be flushed to the disk", error=str(error))
            return False
        return True

    def _keep(self, points: list[_Point], error: OSError, *, last_try: bool) -> None:
        if not self._disk_failed:
            log.error("metrics wait in memory", error=str(error), points=len(points))
        self._disk_failed, self._refusal = True, (error.strerror or str(error)) if is_full(error) else None
        self._taken -= len(points)
        if not last_try:
            room = max(0, MAX_WAITING - len(self._waiting))
            self._waiting.extendleft(reversed(points[len(points) - min(room, len(points)) :]))

    def _shipped(self, *, force: bool = False) -> bool:
        done = [shipper.ship(self._segments[kind].paths, force=force) for kind, shipper in self._shippers.items()]
        return all(done)

    def _tell_dropped(self) -> None:
        """Add what was dropped since to the counter that the api shows; Redis away: at the next flush."""
        new = self.dropped - self._told
        if new > 0 and self._client is not None:
            with contextlib.suppress(redis.RedisError):
                self._client.hincrby(keys.COUNTERS, keys.METRICS_DROPPED, new)
                self._told += new

    def _index(self) -> None:
        """Take closed segments into the index, so that the first look at a long run need not read all of it."""
        for kind, segments in self._segments.items():
            if len(segments.paths) > self._indexed[kind]:
                self._indexed[kind] = len(segments.paths)
                self._indexes[kind].extend()

    def _line(self, point: _Point) -> bytes:
        _, step, at, values = point
        if values is None:
            return json.dumps({"rewind": {"attempt": self._attempt, "step": step}}).encode() + b"\n"
        stamp = utc_text(datetime.fromtimestamp(at, UTC), "milliseconds")
        clean = {name: _finite(value) for name, value in values.items()}
        return (
            json.dumps({"step": step, "time": stamp, "attempt": self._attempt, "values": clean}, separators=(",", ":"))
            + "\n"
        ).encode()


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: they become null, a gap in the chart."""
    number = float(value)
    return number if math.isfinite(number) else None


class _Renderer:
    """Lines of the archive to stream entries: points batched, rewinds on their own."""

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
