"""The streams: `/api/jobs/stream`, `/api/jobs/{id}/stream`, `/api/experiments/{id}/stream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from common.metrics.keys import JOBS_STREAM, experiment_stream, job_stream
from services.api import sse
from services.api.auth import ContextDep, Reader
from services.api.context import Context
from services.api.operations import experiments, jobs
from services.api.schemas.problems import problem_responses
from services.api.stream_clients import LiveStream

router = APIRouter(tags=["streams"], dependencies=[Reader])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events until either side closes"},
    **problem_responses(404, 503),
}
Since = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Go on after this event id; the header `Last-Event-ID` wins. `0` begins with what is kept.",
    ),
]


@router.get("/api/jobs/stream", summary="Follow all jobs", response_class=Response, responses=_STREAM)
async def all_jobs(request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """`snapshot` with every job that has not ended, then a `job-update` for each change."""
    return await _stream(request, context, JOBS_STREAM, lambda session: _wire(jobs.live_jobs(session, context.outlook)))


@router.get("/api/jobs/{job_id}/stream", summary="Follow a job", response_class=Response, responses=_STREAM)
async def one_job(job_id: str, request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """`snapshot` with the job, then `job-update`, `status` (heartbeats with progress) and `log-lines`."""
    return await _stream(
        request,
        context,
        job_stream(job_id),
        lambda session: {"job": _wire(jobs.get_job(session, context.outlook, job_id))},
    )


@router.get(
    "/api/experiments/{experiment_id}/stream",
    summary="Follow an experiment",
    response_class=Response,
    responses=_STREAM,
)
async def one_experiment(experiment_id: str, request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """`snapshot` with the experiment, then `metrics` and `rl-metrics` (every point, in batches), `rewind` before the
    points of a resumed attempt, `status`, `checkpoint`, `log-lines`, `job-update`."""
    return await _stream(
        request,
        context,
        experiment_stream(experiment_id),
        lambda session: {"experiment": _wire(experiments.get_experiment(session, context.store, experiment_id))},
    )


async def _stream(request: Request, context: Context, key: str, state: Callable[[Session], Any]) -> LiveStream:
    def read() -> Any:
        with context.sessions() as session:
            return state(session)

    async def snapshot() -> Any:
        return await run_in_threadpool(read)

    return await sse.stream(context, key, request, snapshot)


def _wire(reply: Any) -> Any:
    return reply.model_dump(mode="json", by_alias=True)
