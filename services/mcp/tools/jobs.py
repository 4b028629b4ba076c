"""Tools about jobs: list, log, submit, signal, wait, explain a failure."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from common.errors import NotFoundError
from services.mcp.access import Access
from services.mcp.tools.arguments import BUDGET, JobId, Limit, MaxTokens
from services.mcp.tools.experiments import without_empty
from tidal_client import AsyncClient, Job, JobReply
from tidal_client.vocabulary import JOB_ID, JobStatus

LONGEST_WAIT_SECONDS = 600.0
POLL_SECONDS = 1.0
LAST_LINES = 40
_SUSPICIOUS = re.compile(r"error|exception|traceback|nan|killed|out of memory|failed|refused|no such", re.IGNORECASE)
"""Lines of a log that probably have to do with a failure."""


class JobTools:
    """Tools about jobs."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def get_jobs(
        self,
        context: Context[Any, Any],
        status: Annotated[list[str] | None, Field(description="Statuses, such as running; null for all.")] = None,
        job_type: Annotated[str | None, Field(description="lm-training, rl-training, evaluation, ….")] = None,
        tag: str | None = None,
        experiment_id: str | None = None,
        limit: Limit = 20,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """List jobs, newest first, with status, progress and place in the queue."""
        client = self._access.client(context)
        found = await client.jobs(status=status, job_type=job_type, tag=tag, experiment=experiment_id, limit=limit)
        return self._access.reply({"jobs": [brief_job(job) for job in found]}, max_tokens)

    async def get_job_logs(
        self,
        context: Context[Any, Any],
        job_id: JobId,
        search: Annotated[str | None, Field(description="Return only lines that contain this text.")] = None,
        last: Annotated[int | None, Field(ge=1, le=2000, description="Return the last lines.")] = 50,
        cursor: Annotated[
            str | None, Field(description="`nextCursor` of the last call: read on from there, instead of the end.")
        ] = None,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Show the log of a job: its last lines, or a page of it from a cursor."""
        client = self._access.client(context)
        if last is not None and cursor is None and search is None:
            lines = await client.last_log_lines(job_id, last)
            return self._access.reply({"lines": [line.text for line in lines]}, max_tokens)
        page = await client.job_logs(job_id, cursor=cursor, search=search, limit=200)
        found = {"lines": [line.text for line in page.lines], "nextCursor": page.next_cursor, "complete": page.complete}
        return self._access.reply(found, max_tokens, hint="call again with `cursor`, or with a larger max_tokens")

    async def submit_job(
        self,
        context: Context[Any, Any],
        job_type: Annotated[
            str, Field(description="lm-training, rl-training, evaluation, ablation, analysis, dataset.")
        ],
        config: Annotated[
            dict[str, Any] | None,
            Field(description="Values that override the defaults, nested as in get_plugin_manifest."),
        ] = None,
        config_path: Annotated[
            str | None, Field(description="A configuration file of the server, as in get_config.")
        ] = None,
        rl_config_path: str | None = None,
        data: Annotated[
            dict[str, Any] | None, Field(description="The corpus, for other types than lm-training.")
        ] = None,
        checkpoint: Annotated[str | None, Field(description="The language model: EXPERIMENT/final.")] = None,
        rl_checkpoint: Annotated[str | None, Field(description="The controller: EXPERIMENT/final.")] = None,
        resume_from: Annotated[str | None, Field(description="Id of an ended job, whose training continues.")] = None,
        name: str | None = None,
        tags: list[str] | None = None,
        priority: Annotated[int | None, Field(ge=-100, le=100)] = None,
        dry_run: Annotated[bool, Field(description="Check and predict, but submit nothing.")] = False,
        idempotency_key: Annotated[
            str | None, Field(description="With the same key, a repeated call returns the job of the first one.")
        ] = None,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Submit a job, or check it with dry_run. Needs a token with the scope submit."""
        client = self._access.client(context)
        fields: dict[str, Any] = {
            "config": config,
            "config_path": config_path,
            "rl_config_path": rl_config_path,
            "data": data,
            "checkpoint": checkpoint,
            "rl_checkpoint": rl_checkpoint,
            "resume_from": resume_from,
            "name": name,
            "tags": tags,
            "priority": priority,
        }
        if dry_run:
            predicted = await client.predict_job(job_type, **fields)
            result = predicted.model_dump(mode="json", by_alias=True, exclude={"payload"})
            return self._access.reply(without_empty(result), max_tokens)
        job = await client.submit_job(job_type, **fields, idempotency_key=idempotency_key)
        return self._access.reply({**brief_job(job), "whatNext": job.what_next}, max_tokens)

    async def signal_job(
        self,
        context: Context[Any, Any],
        job_id: JobId,
        signal: Annotated[
            Literal["pause", "resume", "complete", "stop", "cancel"],
            Field(
                description="pause: checkpoint and free the worker. complete: end now, evaluate, write the model. "
                "stop: checkpoint, then cancel. cancel: stop, and kill after a grace period."
            ),
        ],
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Pause, resume, complete, stop or cancel a job. Needs a token with the scope submit."""
        client = self._access.client(context)
        job = await (client.cancel_job(job_id) if signal == "cancel" else client.signal_job(job_id, signal))
        return self._access.reply({**brief_job(job), "whatNext": job.what_next}, max_tokens)

    async def wait_for_job(
        self,
        context: Context[Any, Any],
        job_id: JobId,
        seconds: Annotated[
            float,
            Field(
                gt=0, le=LONGEST_WAIT_SECONDS, description="Longest time to wait; then the present state is returned."
            ),
        ] = 60.0,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Wait until a job has ended, or until the time is over. Reports its progress meanwhile."""
        client = self._access.client(context)
        deadline = time.monotonic() + seconds
        while True:
            job = await client.job(job_id)
            step = job.progress.step or 0
            await context.report_progress(step, job.progress.total_steps, job.progress.phase or job.status)
            left = deadline - time.monotonic()
            if job.ended or left <= 0:
                break
            await asyncio.sleep(min(POLL_SECONDS, left))
        result = {**brief_job(job), "ended": job.ended, "whatNext": job.what_next}
        return self._access.reply(result, max_tokens)

    async def explain_failure(
        self,
        context: Context[Any, Any],
        job_or_experiment: Annotated[
            str, Field(description="Id of a job, or of an experiment: its newest job is used.")
        ],
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Explain why a job failed, or why its attempts ended: error, advice, attempts, suspicious lines of the log."""
        client = self._access.client(context)
        job = await self._job(client, job_or_experiment)
        events = await client.job_events(job.id)
        lines = [line.text for line in await client.last_log_lines(job.id, 400)]
        suspicious = [line for line in lines if _SUSPICIOUS.search(line)]
        failures = [
            without_empty({"attempt": event.attempt, "event": event.event, "at": event.at, **event.details})
            for event in events
            if event.to_status in (JobStatus.FAILED, JobStatus.STALE, JobStatus.PENDING) and event.event != "submitted"
        ]
        result = {
            **brief_job(job),
            "advice": job.what_next,
            "attemptsThatEnded": failures,
            "restartsByInfrastructure": job.infra_restarts or None,
            "newestCheckpoint": job.checkpoint_ref,
            "predictionWarnings": _warnings(job),
            "suspiciousLines": suspicious[-LAST_LINES:],
            "lastLines": lines[-LAST_LINES // 2 :],
            "resume": f"submit_job with job_type={job.type} and resume_from={job.id}" if job.checkpoint_ref else None,
        }
        if job.status is not JobStatus.FAILED:
            result["note"] = f"the job has not failed: it is {job.status}"
        return self._access.reply(without_empty(result), max_tokens, hint="get_job_logs shows the whole log")

    async def _job(self, client: AsyncClient, name: str) -> Job:
        if name.startswith(JOB_ID):
            return await client.job(name)
        jobs = await client.jobs(experiment=name, limit=1)
        if not jobs:
            raise NotFoundError(f"experiment {name} has no job on this server")
        return await client.job(jobs[0].id)


def _warnings(job: Job) -> list[str]:
    machines = job.prediction.machines if job.prediction else []
    return list(dict.fromkeys(text for machine in machines for text in machine.warnings))


def brief_job(job: JobReply) -> dict[str, Any]:
    """Return what a list shows of a job."""
    return without_empty(
        {
            "id": job.id,
            "type": job.type,
            "status": job.status,
            "experiment": job.experiment_id,
            "name": job.name,
            "tags": job.tags,
            "queuePosition": job.queue_position,
            "step": job.progress.step,
            "totalSteps": job.progress.total_steps,
            "etaSeconds": job.progress.eta_seconds,
            "phase": job.progress.phase,
            "attempt": job.attempt,
            "worker": job.worker,
            "error": job.error and job.error.model_dump(by_alias=True),
            "accepts": [*job.signals, "cancel"] if not job.ended else None,
            "createdAt": job.created_at,
        }
    )
