"""Tracks the state of a running job from the events of its experiment's stream. It uses neither terminal nor network.

`JobView.apply(event)` updates the state and returns the lines to print. It accepts every order in which the server may
send events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.disk import shortage_text
from common.metrics.names import BITS_PER_BYTE, EPISODE_REWARD, LOSS, TOKENS_PER_SECOND, VALIDATION_LOSS
from tidal_client import Job, StreamEvent
from tidal_client.vocabulary import WAITING_FOR_DISK, JobStatus

WAITING = "waiting for disk space"
"""Text that is shown for the phase `waiting_for_disk`, followed by the space that is missing."""
QUIET_STATUSES = frozenset({JobStatus.PROVISIONING, JobStatus.STARTING})
"""Statuses for which no line is printed, because they are shown as the phase of the job."""


@dataclass
class JobView:
    """The newest known state of a job."""

    job: Job
    phase: str = ""
    step: int = 0
    total_steps: int | None = None
    eta_seconds: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    """{metric name: newest value}. A value that was not finite is NaN."""
    clock: Callable[[], float] = time.monotonic
    """Function that returns the current time in seconds. Tests replace it."""
    _first_step_at: float | None = None

    def __post_init__(self) -> None:
        self._take_progress(self.job.progress.model_dump())

    @property
    def fraction(self) -> float:
        """Return the progress in [0, 1], by steps or by the time limit, whichever is larger; 0 if both are unknown."""
        if self.job.status == JobStatus.COMPLETED:
            return 1.0
        by_step = self.step / self.total_steps if self.total_steps else 0.0
        by_time = 0.0
        limit = self._time_limit()
        if limit and self._first_step_at is not None:
            by_time = (self.clock() - self._first_step_at) / limit
        return min(max(by_step, by_time), 1.0)

    @property
    def seconds_left(self) -> float | None:
        """Return the remaining seconds: the smaller of the trainer's estimate and the time until the time limit.

        None if neither is known, if no seconds remain, or if the job is not running.
        """
        limit = self._time_limit()
        by_time = limit - (self.clock() - self._first_step_at) if limit and self._first_step_at is not None else None
        known = [seconds for seconds in (self.eta_seconds, by_time) if seconds is not None]
        return min(known) if known and min(known) > 0 and self.job.status == JobStatus.RUNNING else None

    def _time_limit(self) -> float | None:
        """Return `max_seconds` of the configuration (section `training` or top level); None if it is not set."""
        config = (self.job.payload or {}).get("config", {})
        limit = config.get("training", config).get("max_seconds")
        return float(limit) if limit else None

    def update(self, job: Job) -> list[str]:
        """Replace the state by a newer one from the api, and return the lines to print."""
        before, self.job = self.job, job.model_copy(update={"payload": job.payload or self.job.payload})
        self._take_progress(job.progress.model_dump())
        if (job.status, job.attempt) == (before.status, before.attempt) or job.status in QUIET_STATUSES:
            return []
        attempt = f" (attempt {job.attempt})" if job.attempt > 1 else ""
        reason = (
            f": {job.error.message or job.error.code}"
            if job.error and job.status in (JobStatus.FAILED, JobStatus.STALE)
            else ""
        )
        return [f"{job.status}{attempt}{reason}"]

    def apply(self, event: StreamEvent) -> list[str]:
        """Apply an event of the stream to the state, and return the lines to print."""
        data = event.data if isinstance(event.data, dict) else {}
        if event.name in ("metrics", "rl-metrics"):
            for point in data.get("points", ()):
                self._take_point(point)
        elif event.name == "status":
            self._take_progress({"step": data.get("step"), "total_steps": data.get("totalSteps")})
            return self._take_phase(data)
        elif event.name == "rewind":
            self.step = int(data.get("step") or 0)
            return [f"attempt {data.get('attempt')} continues after step {self.step}"]
        elif event.name == "job-update":
            return self._take_job(data)
        return []

    def summary(self) -> str:
        """Return the newest metrics as text, such as `loss 4.31 · validation 4.40 · 1.523 bits/byte ·
        12.3k tokens/s`."""
        parts = []
        for name, label in ((LOSS, "loss"), (VALIDATION_LOSS, "validation"), (EPISODE_REWARD, "reward")):
            if name in self.values:
                value = self.values[name]
                parts.append(f"{label} {value:.3f}" if math.isfinite(value) else f"{label} not finite")
        if math.isfinite(self.values.get(BITS_PER_BYTE, math.nan)):
            parts.append(f"{self.values[BITS_PER_BYTE]:.3f} bits/byte")
        if math.isfinite(self.values.get(TOKENS_PER_SECOND, math.nan)):
            parts.append(f"{self.values[TOKENS_PER_SECOND] / 1000:.1f}k tokens/s")
        return " · ".join(parts)

    def _take_phase(self, data: Mapping[str, Any]) -> list[str]:
        waited, waits, disk = self.phase.startswith(WAITING), data.get("phase") == WAITING_FOR_DISK, data.get("disk")
        self._take_progress({"phase": data.get("phase"), "eta_seconds": data.get("etaSeconds")})
        if not waits:
            return ["the disk has enough space again; the job continues"] if waited and data.get("phase") else []
        if isinstance(disk, dict):
            shortage = shortage_text(disk["disk"], disk["freeBytes"], disk["neededBytes"], disk.get("reason"))
            self.phase = f"{WAITING}: {shortage}"
        return [] if waited else [f"{self.phase}; the job continues automatically when you have freed some space"]

    def _take_point(self, point: Mapping[str, Any]) -> None:
        self._take_progress({"step": int(point.get("step") or 0)})
        for name, value in (point.get("values") or {}).items():
            # None means that the value was not finite, because the training has diverged.
            self.values[name] = math.nan if value is None else float(value)

    def _take_progress(self, progress: Mapping[str, Any]) -> None:
        phase = progress.get("phase") or self.phase
        # The progress of the job does not contain the text about the disk, so the text is kept while the job waits for
        # space.
        if phase != WAITING_FOR_DISK or not self.phase.startswith(WAITING):
            self.phase = phase
        self.step = max(self.step, progress.get("step") or 0)
        if self.step and self._first_step_at is None:
            self._first_step_at = self.clock()
        self.total_steps = progress.get("total_steps") or self.total_steps
        self.eta_seconds = progress.get("eta_seconds") or self.eta_seconds

    def _take_job(self, data: Mapping[str, Any]) -> list[str]:
        if data.get("id") != self.job.id:
            return []
        return self.update(Job.model_validate({**self.job.model_dump(by_alias=True), **data}))
