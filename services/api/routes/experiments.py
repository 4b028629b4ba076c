"""`/api/experiments`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from redis.exceptions import RedisError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from common.jobs.submission import MAX_TAG
from common.redis.keys import experiment_stream
from services.api.auth import ContextDep, Reader, Submitter
from services.api.context import Context, session_of
from services.api.operations import experiment_changes, experiments, metrics
from services.api.paging import Cursor, Limit
from services.api.schemas.experiments import ExperimentChange
from services.api.schemas.problems import problem_responses
from services.api.streaming.entries import format_id
from tidal_client.vocabulary import JobStatus
from tidal_client.wire.experiment import (
    ConfigReply,
    ExperimentDetail,
    ExperimentList,
    ExperimentStatus,
    ResultReply,
    SampleList,
    TagList,
)
from tidal_client.wire.metrics import MetricsReply

router = APIRouter(prefix="/api/experiments", tags=["experiments"], dependencies=[Reader])
MAX_STEP = 2**53 - 1
"""What a number of JavaScript holds exactly."""
SessionDep = Annotated[Session, Depends(session_of, scope="function")]
Keys = Annotated[
    str | None, Query(max_length=2000, description="Names of values, comma-separated; without it all of them.")
]
Mode = Annotated[
    Literal["recent", "historical"], Query(description="recent: the last `window` points; historical: all of them.")
]
Window = Annotated[int, Query(ge=1, le=1_000_000, description="Points looked at in mode recent.")]
MaxPoints = Annotated[int, Query(ge=3, le=50_000, alias="maxPoints", description="Most points per name in the reply.")]
FromStep = Annotated[int | None, Query(ge=0, le=MAX_STEP, alias="fromStep", description="First step looked at.")]
ToStep = Annotated[
    int | None,
    Query(ge=0, le=MAX_STEP, alias="toStep", description="Last step looked at; mode recent counts back from it."),
]


@router.get("", summary="List experiments")
def list_experiments(
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    kinds: Annotated[
        list[Literal["lm", "rl", "evaluation", "ablation", "analysis", "dataset"]] | None,
        Query(alias="type", description="Repeat it for several. Without it every type but dataset."),
    ] = None,
    status: Annotated[JobStatus | None, Query(description="Of the newest job.")] = None,
    tag: Annotated[str | None, Query(max_length=MAX_TAG)] = None,
    search: Annotated[str | None, Query(max_length=200, description="Part of the id or the name.")] = None,
) -> ExperimentList:
    """Newest first."""
    return experiments.experiments_page(
        session, limit=limit, cursor=cursor, kinds=kinds, status=status, tag=tag, search=search
    )


@router.get("/tags", summary="List the tags of all experiments")
def list_tags(session: SessionDep) -> TagList:
    """Whatever a list is filtered by. Those of dataset jobs are left out, as in the list."""
    return experiments.experiment_tags(session)


@router.get("/{experiment_id}", summary="Show an experiment", responses=problem_responses(404))
def get_experiment(experiment_id: str, session: SessionDep, context: ContextDep) -> ExperimentDetail:
    """With the names of its metrics and which results exist."""
    return experiments.experiment_detail(session, context.store, experiment_id)


@router.patch(
    "/{experiment_id}",
    summary="Name, tag or annotate an experiment",
    dependencies=[Submitter],
    responses=problem_responses(404),
)
def patch_experiment(experiment_id: str, body: ExperimentChange, context: ContextDep) -> ExperimentDetail:
    """Sets what the body names and leaves the rest; null takes a name or the notes away."""
    with context.sessions.begin() as session:
        experiment_changes.change_experiment(session, experiment_id, body)
    with context.sessions() as session:
        return experiments.experiment_detail(session, context.store, experiment_id)


@router.delete(
    "/{experiment_id}",
    summary="Delete an experiment",
    status_code=204,
    dependencies=[Submitter],
    responses=problem_responses(404, 409),
)
def delete_experiment(experiment_id: str, context: ContextDep) -> None:
    """With its jobs, checkpoints, metrics and logs; 409 while a job that writes to it or reads from it lives."""
    experiment_changes.remove_experiment(context.sessions, context.store, experiment_id)


@router.get("/{experiment_id}/status", summary="Where its newest job stands", responses=problem_responses(404))
def get_status(experiment_id: str, session: SessionDep) -> ExperimentStatus:
    """Status, attempt, progress, error."""
    return experiments.experiment_status(session, experiment_id)


@router.get(
    "/{experiment_id}/metrics",
    summary="Metrics of pretraining",
    response_model=MetricsReply,
    responses=problem_responses(404),
)
async def get_metrics(
    experiment_id: str,
    context: ContextDep,
    keys: Keys = None,
    mode: Mode = "recent",
    window: Window = 5000,
    max_points: MaxPoints = 2000,
    from_step: FromStep = None,
    to_step: ToStep = None,
) -> Response:
    """Downsampled per name by largest-triangle-three-buckets. For each step the highest attempt counts."""
    return await _metrics(context, experiment_id, "metrics", keys, mode, window, max_points, from_step, to_step)


@router.get(
    "/{experiment_id}/rl-metrics",
    summary="Metrics of the controller",
    response_model=MetricsReply,
    responses=problem_responses(404),
)
async def get_rl_metrics(
    experiment_id: str,
    context: ContextDep,
    keys: Keys = None,
    mode: Mode = "recent",
    window: Window = 5000,
    max_points: MaxPoints = 2000,
    from_step: FromStep = None,
    to_step: ToStep = None,
) -> Response:
    """Like `metrics`; a step is a transition."""
    return await _metrics(context, experiment_id, "rl-metrics", keys, mode, window, max_points, from_step, to_step)


async def _metrics(
    context: Context,
    experiment_id: str,
    kind: Literal["metrics", "rl-metrics"],
    keys: str | None,
    mode: Literal["recent", "historical"],
    window: int,
    max_points: int,
    from_step: int | None,
    to_step: int | None,
) -> Response:
    # The position first, the files second: the writer puts a point into the file before it goes into the stream.
    try:
        cursor = format_id((await context.hub.position(experiment_stream(experiment_id))).id)
    except RedisError:
        cursor = None
    names = [name.strip() for name in keys.split(",") if name.strip()] if keys is not None else None

    def read() -> bytes:
        with context.sessions() as session:
            experiments.find_experiment(session, experiment_id)
        found = metrics.read_metrics(
            context.store,
            experiment_id,
            kind,
            keys=names,
            mode=mode,
            window=window,
            max_points=max_points,
            from_step=from_step,
            to_step=to_step,
            stream_cursor=cursor,
        )
        return found.model_dump_json(by_alias=True).encode()

    # As bytes: the framework would check and copy every point once more, on the event loop.
    return Response(await run_in_threadpool(read), media_type="application/json")


@router.get("/{experiment_id}/config", summary="Its configuration", responses=problem_responses(404, 507))
def get_config(experiment_id: str, session: SessionDep, context: ContextDep) -> ConfigReply:
    """Every default filled in."""
    return experiments.read_config(session, context.store, experiment_id)


@router.get("/{experiment_id}/evaluation", summary="Result of the evaluation", responses=problem_responses(404, 507))
def get_evaluation(experiment_id: str, session: SessionDep, context: ContextDep) -> ResultReply:
    """Perplexity and samples; 404 until it was written."""
    experiments.find_experiment(session, experiment_id)
    return experiments.read_result(context.store, experiment_id, experiments.EVALUATION_FILE)


@router.get("/{experiment_id}/ablation", summary="Result of the ablation", responses=problem_responses(404, 507))
def get_ablation(experiment_id: str, session: SessionDep, context: ContextDep) -> ResultReply:
    """Every policy with mean, spread and confidence interval; 404 until it was written."""
    experiments.find_experiment(session, experiment_id)
    return experiments.read_result(context.store, experiment_id, experiments.ABLATION_FILE)


@router.get("/{experiment_id}/samples", summary="Texts of the evaluation", responses=problem_responses(404, 507))
def get_samples(experiment_id: str, session: SessionDep, context: ContextDep) -> SampleList:
    """Prompt and generated text of each sample; 404 until they were written."""
    experiments.find_experiment(session, experiment_id)
    return experiments.read_samples(context.store, experiment_id)
