"""The live streams: of all jobs, of one job, of one experiment, and of several of these on one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from common.errors import InvalidInputError
from common.redis.keys import JOBS_STREAM, experiment_stream, job_stream
from services.api.auth import ContextDep, Reader
from services.api.context import Context
from services.api.operations import experiments, jobs
from services.api.schemas.problems import problem_responses
from services.api.streaming import sse
from services.api.streaming.clients import LiveStream
from services.api.streaming.entries import StreamId
from services.api.streaming.snapshots import StateReader

router = APIRouter(tags=["streams"], dependencies=[Reader])
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "Events, until the client or the server closes the connection",
    },
    **problem_responses(404, 503),
}
BRIEF = "/brief"
"""Suffix of a topic name. If a topic name ends with it, `log-lines` events contain only the position of the lines, not
the lines themselves."""
Since = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Continue after this event id; `0` begins with the oldest stored event. The header `Last-Event-ID` "
        "takes precedence.",
    ),
]


Topics = Annotated[
    list[Annotated[str, Query(max_length=300)]],
    Query(
        min_length=1,
        max_length=64,
        description="`jobs`, `jobs/<id>` or `experiments/<id>`; append `@<event id>` to continue the stream after "
        "this event. With `/brief` after the id, `log-lines` events contain no lines; `next` is the number of the next "
        "line.",
    ),
]


@router.get("/api/stream", summary="Follow several streams", response_class=Response, responses=_STREAM)
async def several(context: ContextDep, topic: Topics) -> LiveStream:
    """Sends the events of several streams on one connection, for clients that may open only few connections.

    Each `topic` event names the stream to which the events after it belong. For a stream that does not exist, an
    `error` event is sent.
    """
    sources = {}
    for text in topic:
        name, _, since = text.partition("@")
        cursor = sse.parse_cursor(since, "query.topic") if since else None
        sources[name] = _source(context, name, cursor)
    return await sse.streams(context, sources)


@router.get("/api/jobs/stream", summary="Follow all jobs", response_class=Response, responses=_STREAM)
async def all_jobs(request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """Sends a `snapshot` with all jobs that have not ended, then a `job-update` for each change."""
    return await sse.stream(context, _source(context, "jobs", sse.cursor_of(request)))


@router.get("/api/jobs/{job_id}/stream", summary="Follow a job", response_class=Response, responses=_STREAM)
async def one_job(job_id: str, request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """Sends a `snapshot` with the job, then the events `job-update`, `status` (heartbeats with progress) and
    `log-lines`."""
    return await sse.stream(context, _source(context, f"jobs/{job_id}", sse.cursor_of(request)))


@router.get(
    "/api/experiments/{experiment_id}/stream",
    summary="Follow an experiment",
    response_class=Response,
    responses=_STREAM,
)
async def one_experiment(experiment_id: str, request: Request, context: ContextDep, since: Since = None) -> LiveStream:
    """Sends a `snapshot` with the experiment, then the events `metrics` and `rl-metrics` (all points, in batches),
    `rewind` (before a resumed attempt repeats steps), `status`, `checkpoint`, `log-lines` and `job-update`."""
    return await sse.stream(context, _source(context, f"experiments/{experiment_id}", sse.cursor_of(request)))


def _source(context: Context, topic: str, cursor: StreamId | None) -> sse.StreamSource:
    """Return the stream with this name. Raises InvalidInputError for an unknown kind of stream."""
    kind, _, name = topic.partition("/")
    brief, name = name.endswith(BRIEF), name.removesuffix(BRIEF)
    if topic == "jobs":
        return sse.StreamSource(
            JOBS_STREAM, cursor, _state_reader(context, lambda session: _all_jobs(context, session))
        )
    if kind == "jobs" and name:
        read_state = _state_reader(context, lambda session: _job(context, session, name))
        return sse.StreamSource(job_stream(name), cursor, read_state, brief)
    if kind == "experiments" and name:
        read_state = _state_reader(context, lambda session: _experiment(context, session, name))
        return sse.StreamSource(experiment_stream(name), cursor, read_state, brief)
    message = f"'{topic[:50]}' is not a stream; expected jobs, jobs/<id> or experiments/<id>"
    raise InvalidInputError(message, errors=[{"location": "query.topic", "message": message}])


def _all_jobs(context: Context, session: Session) -> Any:
    return _to_json(jobs.live_jobs(session, context.outlook))


def _job(context: Context, session: Session, job_id: str) -> Any:
    return {"job": _to_json(jobs.get_job(session, context.outlook, job_id))}


def _experiment(context: Context, session: Session, experiment_id: str) -> Any:
    return {"experiment": _to_json(experiments.experiment_detail(session, context.store, experiment_id))}


def _state_reader(context: Context, state: Callable[[Session], Any]) -> StateReader:
    def read() -> Any:
        with context.sessions() as session:
            return state(session)

    async def make() -> Any:
        return await run_in_threadpool(read)

    return make


def _to_json(reply: Any) -> Any:
    return reply.model_dump(mode="json", by_alias=True)
