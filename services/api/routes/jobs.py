"""`/api/jobs`: submits, lists and controls jobs, and returns their events and logs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Response
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from common.db import require_schema
from common.jobs.submission import MAX_TAG, MAX_TEXT
from services.api.auth import By, ContextDep, Reader
from services.api.context import session_of
from services.api.json_body import UniqueKeysRoute
from services.api.operations import jobs, logs, submission
from services.api.paging import Cursor, Limit, decode_number
from services.api.schemas.jobs import JobRequest, SignalRequest
from services.api.schemas.problems import problem_responses
from tidal_client.vocabulary import TERMINAL, JobStatus, JobType
from tidal_client.wire.job import JobDetail, JobEventList, JobList, JobPrediction, LogPage

router = APIRouter(prefix="/api/jobs", tags=["jobs"], route_class=UniqueKeysRoute)
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.post(
    "",
    summary="Submit a job",
    status_code=201,
    response_model=JobDetail | JobPrediction,
    responses={
        200: {"model": JobPrediction, "description": "`dryRun=true`: what would happen"},
        **problem_responses(404, 409, 429, 503),
    },
)
def create(
    body: JobRequest,
    context: ContextDep,
    caller: By,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=MAX_TEXT,
            description="Send the same key when you repeat a request whose reply was lost. The reply is then the "
            "job of the first request (`Idempotency-Replayed: true`). A key is stored for 24 h. A request with the "
            "same key and another body is answered with 422.",
        ),
    ] = None,
    dry_run: Annotated[bool, Query(alias="dryRun", description="Check and predict, but submit nothing.")] = False,
) -> JobDetail | JobPrediction:
    """Checks the whole body and submits the job.

    If the concurrency limit of the job type is reached, the job waits in the queue (`queuePosition`); with `queue`
    false, the reply is 409. Answers 429 `too_many_waiting` when `TIDAL_MAX_WAITING_JOBS` jobs are already waiting.
    """
    require_schema(context.engine)  # columns of an outdated schema could have another meaning
    if dry_run:
        response.status_code = 200
        return submission.predict_job(context, body)
    created, replayed = submission.submit_job(context, body, idempotency_key, caller)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    context.outbox.wake()
    response.headers["Location"] = f"{context.settings.root_path.rstrip('/')}/api/jobs/{created.id}"
    return created


@router.get("", summary="List jobs", dependencies=[Reader])
def list_jobs(
    session: SessionDep,
    context: ContextDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[
        list[JobStatus] | None, Query(description="Status of the jobs; repeat the parameter for several statuses.")
    ] = None,
    kind: Annotated[JobType | None, Query(alias="type")] = None,
    tag: Annotated[str | None, Query(max_length=MAX_TAG)] = None,
    experiment_id: Annotated[str | None, Query(max_length=200, alias="experimentId")] = None,
) -> JobList:
    """Returns jobs, newest first."""
    return jobs.jobs_page(
        session,
        context.outlook,
        limit=limit,
        cursor=cursor,
        statuses=status,
        kind=kind,
        tag=tag,
        experiment_id=experiment_id,
    )


@router.get("/active", summary="List the jobs that occupy a slot of a worker", dependencies=[Reader])
def list_active(session: SessionDep, context: ContextDep) -> JobList:
    """Returns the jobs that are provisioning, starting, running, completing, stopping or stale."""
    return jobs.active_jobs(session, context.outlook)


@router.get("/{job_id}", summary="Show a job", dependencies=[Reader], responses=problem_responses(404))
def get(job_id: str, session: SessionDep, context: ContextDep) -> JobDetail:
    """Returns a job with its payload, and a sentence about what happens next."""
    return jobs.get_job(session, context.outlook, job_id)


@router.get(
    "/{job_id}/events", summary="List the events of a job", dependencies=[Reader], responses=problem_responses(404)
)
def get_events(
    job_id: str,
    session: SessionDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    cursor: Annotated[str | None, Query(max_length=30, description="`nextCursor` of the previous page.")] = None,
) -> JobEventList:
    """Returns the events of a job, oldest first. Each change of the job adds one event."""
    return jobs.job_events(session, job_id, limit=limit, after=decode_number(cursor))


@router.get("/{job_id}/logs", summary="Show the log of a job", dependencies=[Reader], responses=problem_responses(404))
def get_logs(
    job_id: str,
    session: SessionDep,
    context: ContextDep,
    limit: Annotated[int, Query(ge=1, le=5000, description="Maximum number of lines in the reply.")] = 500,
    cursor: Annotated[str | None, Query(max_length=60, description="`nextCursor` of the previous page.")] = None,
    search: Annotated[
        str | None, Query(max_length=200, description="Return only lines that contain this text, ignoring case.")
    ] = None,
) -> LogPage:
    """Returns the output of the trainer, oldest attempt first.

    To get lines that are written later, repeat the request with the `nextCursor` of the last page. A page of a search
    may contain fewer lines than `limit`; continue with its `nextCursor` until `complete` is true.
    """
    job = jobs.find_job(session, job_id)
    folder = context.store.experiment(job.experiment_id) / "logs"
    return logs.read_logs(folder, cursor, limit, ended=job.status in TERMINAL, search=search)


@router.get(
    "/{job_id}/logs/download",
    summary="Download the log of a job",
    dependencies=[Reader],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "The log"}, **problem_responses(404)},
)
def download_logs(job_id: str, session: SessionDep, context: ContextDep) -> StreamingResponse:
    """Sends the log of all attempts as one text file; no lines are cut.

    If the job still runs, the file ends with the newest line.
    """
    job = jobs.find_job(session, job_id)
    found = logs.complete_log(context.store.experiment(job.experiment_id) / "logs")
    disposition = {"Content-Disposition": f'attachment; filename="{job_id}.log"'}
    return StreamingResponse(found, media_type="text/plain; charset=utf-8", headers=disposition)


@router.post(
    "/{job_id}/signal",
    summary="Pause, resume, complete or stop a job",
    responses=problem_responses(404, 409),
)
def signal(job_id: str, body: SignalRequest, context: ContextDep, caller: By) -> JobDetail:
    """Stores the signal as the desired state of the job, which the worker then carries out.

    Answers 409 with `currentStatus` if the job does not accept the signal in its current status.
    """
    with context.sessions.begin() as session:
        found = jobs.signal_job(session, context.outlook, job_id, body.signal, caller)
    context.outbox.wake()
    return found


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses=problem_responses(404, 409),
)
def cancel_job(job_id: str, context: ContextDep, caller: By) -> JobDetail:
    """Stops the job like the signal stop, and kills the trainer after a grace period.

    The trainer is killed only if it has not ended when the grace period is over. Pending and paused jobs end at once.
    """
    with context.sessions.begin() as session:
        found = jobs.cancel_job(session, context.outlook, job_id, caller)
    context.outbox.wake()
    return found
