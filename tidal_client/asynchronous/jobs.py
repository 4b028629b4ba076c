"""Methods of `AsyncClient` for jobs: submit, wait, list, show, signal, logs, queue."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import UnavailableError
from ..requests import request_body, segment
from ..sse import PATIENCE_SECONDS
from ..vocabulary import CheckpointMode, utc_text
from ..wire.job import (
    JobDetail,
    JobEventList,
    JobEventReply,
    JobList,
    JobPrediction,
    JobReply,
    LogLine,
    LogPage,
)
from ..wire.queue import QueueList, QueueReply
from .files import AsyncFileCalls
from .runtime import async_sleep_for

FIRST_POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 2.0
"""`wait` asks for the job after FIRST_POLL_SECONDS, and then after waits that grow to LONGEST_POLL_SECONDS."""
EVENTS_PER_PAGE = 1000
LINES_PER_PAGE = 5000


class AsyncJobCalls(AsyncFileCalls):
    """Methods of `AsyncClient` for jobs."""

    async def submit_job(
        self,
        job_type: str,
        *,
        config: Mapping[str, Any] | None = None,
        config_path: str | None = None,
        rl_config_path: str | None = None,
        data: Mapping[str, Any] | None = None,
        checkpoint: str | None = None,
        checkpoint_mode: CheckpointMode | None = None,
        rl_checkpoint: str | None = None,
        resume_from: str | None = None,
        priority: int | None = None,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        not_before: datetime | None = None,
        gpus: int | None = None,
        queue: bool | None = None,
        idempotency_key: str | None = None,
    ) -> JobDetail:
        """Submit a job and return it. A field that is None has the api's default.

        The request has an idempotency key, so a repetition after a broken connection returns the job of the first
        request instead of a second one. To repeat the call itself, for example after a restart of your program, pass
        the same `idempotency_key` again.
        """
        body = _job_body(
            type=job_type,
            config=dict(config) if config else None,
            config_path=config_path,
            rl_config_path=rl_config_path,
            data=dict(data) if data else None,
            checkpoint=checkpoint,
            checkpoint_mode=checkpoint_mode,
            rl_checkpoint=rl_checkpoint,
            resume_from=resume_from,
            priority=priority,
            name=name,
            tags=tags,
            not_before=not_before,
            gpus=gpus,
            queue=queue,
        )
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._post(JobDetail, "/api/jobs", body, repeatable=True, headers=headers)

    async def predict_job(self, job_type: str, **fields: Any) -> JobPrediction:
        """Return what the submission of this job would do, without submitting it. `fields` are those of `submit_job`,
        without the idempotency key."""
        body = _job_body(type=job_type, **fields)
        return await self._post(JobPrediction, "/api/jobs", body, repeatable=True, params={"dryRun": "true"})

    async def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[JobDetail], None] = lambda job: None,
    ) -> JobDetail:
        """Wait until a job has ended, and return it; its `status` is completed, failed or cancelled.

        Calls `on_change` with the job at the beginning and after each change of status or progress. A paused job has
        not ended. Raises TimeoutError after `timeout` seconds, UnavailableError if the api has not replied for a
        minute, and NotFoundError.
        """
        started = contact = time.monotonic()
        shown: object = None
        poll = FIRST_POLL_SECONDS
        while True:
            try:
                job = await self.job(job_id)
            except UnavailableError:
                if time.monotonic() - contact > PATIENCE_SECONDS:
                    raise
            else:
                contact = time.monotonic()
                if (job.status, job.progress) != shown:
                    shown = (job.status, job.progress)
                    on_change(job)
                if job.ended:
                    return job
            left = float("inf") if timeout is None else started + timeout - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"job {job_id} has not ended within {timeout:g} s")
            await async_sleep_for(min(poll, left))
            poll = min(1.5 * poll, LONGEST_POLL_SECONDS)

    async def job(self, job_id: str) -> JobDetail:
        """Return a job with its payload. Raises NotFoundError."""
        return await self._get(JobDetail, f"/api/jobs/{segment(job_id)}")

    async def jobs(
        self,
        *,
        status: str | Sequence[str] | None = None,
        job_type: str | None = None,
        tag: str | None = None,
        experiment: str | None = None,
        limit: int | None = 20,
    ) -> list[JobReply]:
        """Return the newest jobs that match all given filters: at most `limit`, or all if it is None."""
        query: dict[str, Any] = {"status": status, "type": job_type, "tag": tag, "experimentId": experiment}
        return await self._pages(JobList, "/api/jobs", lambda page: page.jobs, limit=limit, **query)

    async def active_jobs(self) -> list[JobReply]:
        """Return the jobs that occupy a slot of a worker."""
        return (await self._get(JobList, "/api/jobs/active")).jobs

    async def signal_job(self, job_id: str, signal: str) -> JobDetail:
        """Send a signal: pause, resume, complete or stop. Raises ConflictError if the status does not allow it."""
        return await self._post(JobDetail, f"/api/jobs/{segment(job_id)}/signal", {"signal": signal})

    async def cancel_job(self, job_id: str) -> JobDetail:
        """Stop a job. If its trainer still runs when the grace period ends, the trainer is killed."""
        return await self._post(JobDetail, f"/api/jobs/{segment(job_id)}/cancel", None)

    async def queues(self, *, limit: int = 100) -> list[QueueReply]:
        """Return every queue with its workers and the first `limit` waiting jobs of each type."""
        return (await self._get(QueueList, "/api/queue", limit=limit)).queues

    async def job_events(self, job_id: str) -> list[JobEventReply]:
        """Return all events of a job, oldest first."""
        path = f"/api/jobs/{segment(job_id)}/events"
        return await self._pages(JobEventList, path, lambda page: page.events, limit=None, size=EVENTS_PER_PAGE)

    async def job_logs(
        self, job_id: str, *, cursor: str | None = None, search: str | None = None, limit: int | None = None
    ) -> LogPage:
        """Return the page of a job's log after `cursor`, of at most `limit` lines, by default 500.

        With `search`, the page contains only lines with this text, ignoring case.
        """
        path = f"/api/jobs/{segment(job_id)}/logs"
        return await self._get(LogPage, path, cursor=cursor, search=search, limit=limit)

    async def last_log_lines(self, job_id: str, count: int) -> list[LogLine]:
        """Return the last `count` lines of a job's log. It downloads the whole log for this."""
        last: deque[LogLine] = deque(maxlen=count)
        cursor: str | None = None
        while True:
            page = await self.job_logs(job_id, limit=LINES_PER_PAGE, cursor=cursor)
            last.extend(page.lines)
            cursor = page.next_cursor
            if page.complete or cursor is None:
                return list(last)

    async def download_log(
        self, job_id: str, to: Path, *, on_progress: Callable[[int], None] = lambda received: None
    ) -> Path:
        """Write the complete log of a job to the file `to` and return it. Replaces an existing file."""
        return await self._download(f"/api/jobs/{segment(job_id)}/logs/download", to, on_progress=on_progress)


def _job_body(**fields: Any) -> dict[str, Any]:
    """Return the body of a submission. A status, mode or time becomes its text."""
    body = request_body(**fields)
    moment = body.get("notBefore")
    return {**body, "notBefore": utc_text(moment)} if isinstance(moment, datetime) else body
