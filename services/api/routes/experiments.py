"""`/api/experiments`: the metrics, configurations and results of jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from redis.exceptions import RedisError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from common.jobs.submission import MAX_TAG
from common.redis.keys import experiment_stream
from services.api.auth import By, ContextDep, Reader
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
    SampleHistory,
    SampleList,
    TagList,
)
from tidal_client.wire.metrics import MetricsReply
from tidal_client.wire.vocabulary import VocabularyDetail

router = APIRouter(prefix="/api/experiments", tags=["experiments"], dependencies=[Reader])
MAX_STEP = 2**53 - 1
"""Largest integer that a JavaScript number represents exactly."""
SessionDep = Annotated[Session, Depends(session_of, scope="function")]
Keys = Annotated[
    str | None, Query(max_length=2000, description="Comma-separated names of metrics; omit it for all metrics.")
]
Mode = Annotated[
    Literal["recent", "historical"],
    Query(description="recent: the last `window` points of each metric; historical: all points."),
]
Window = Annotated[int, Query(ge=1, le=1_000_000, description="Number of newest points to use in mode recent.")]
MaxPoints = Annotated[
    int, Query(ge=3, le=50_000, alias="maxPoints", description="Maximum number of points per metric in the reply.")
]
FromStep = Annotated[int | None, Query(ge=0, le=MAX_STEP, alias="fromStep", description="First step to include.")]
ToStep = Annotated[
    int | None,
    Query(
        ge=0,
        le=MAX_STEP,
        alias="toStep",
        description="Last step to include. In mode recent, the `window` points up to this step are used.",
    ),
]


@router.get("", summary="List experiments")
def list_experiments(
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    kinds: Annotated[
        list[Literal["lm", "rl", "evaluation", "headroom", "ablation", "analysis", "dataset"]] | None,
        Query(
            alias="type",
            description="Type of the experiments; repeat the parameter for several types. Omit it for all types "
            "except dataset.",
        ),
    ] = None,
    status: Annotated[JobStatus | None, Query(description="Status of the newest job.")] = None,
    tag: Annotated[str | None, Query(max_length=MAX_TAG)] = None,
    search: Annotated[str | None, Query(max_length=200, description="Text that the id or the name contains.")] = None,
) -> ExperimentList:
    """Returns experiments, newest first."""
    return experiments.experiments_page(
        session, limit=limit, cursor=cursor, kinds=kinds, status=status, tag=tag, search=search
    )


@router.get("/tags", summary="List the tags of all experiments")
def list_tags(session: SessionDep) -> TagList:
    """Returns the tags of all experiments whose type is not dataset.

    The list of experiments can be filtered by each tag.
    """
    return experiments.experiment_tags(session)


@router.get("/{experiment_id}", summary="Show an experiment", responses=problem_responses(404))
def get_experiment(experiment_id: str, session: SessionDep, context: ContextDep) -> ExperimentDetail:
    """Returns an experiment with the names of its metrics and the results that exist."""
    return experiments.experiment_detail(session, context.store, experiment_id)


@router.patch(
    "/{experiment_id}",
    summary="Change the name, tags or notes of an experiment",
    responses=problem_responses(404),
)
def patch_experiment(experiment_id: str, body: ExperimentChange, context: ContextDep, caller: By) -> ExperimentDetail:
    """Sets the fields that the body contains. null removes the name or the notes."""
    with context.sessions.begin() as session:
        experiment_changes.change_experiment(session, experiment_id, body, caller)
    with context.sessions() as session:
        return experiments.experiment_detail(session, context.store, experiment_id)


@router.delete(
    "/{experiment_id}",
    summary="Delete an experiment",
    status_code=204,
    responses=problem_responses(404, 409),
)
def delete_experiment(experiment_id: str, context: ContextDep, caller: By) -> None:
    """Deletes an experiment with its jobs, checkpoints, metrics and logs.

    Answers 409 until all jobs that write to the experiment or read from it have ended. Others' experiments need the
    scope admin.
    """
    experiment_changes.remove_experiment(context.sessions, context.store, experiment_id, caller)


@router.get(
    "/{experiment_id}/vocabulary",
    summary="Show the vocabulary of a language model",
    responses=problem_responses(404, 507),
)
def get_vocabulary(experiment_id: str, session: SessionDep, context: ContextDep) -> VocabularyDetail:
    """Returns name, size and digest of the vocabulary and some of its entries.

    The vocabulary is known as soon as the training has stored it or has written its first checkpoint.
    """
    return experiments.read_vocabulary(
        session, context.store, experiment_id, root_path=context.settings.root_path.rstrip("/")
    )


@router.get("/{experiment_id}/status", summary="Show the status of the newest job", responses=problem_responses(404))
def get_status(experiment_id: str, session: SessionDep) -> ExperimentStatus:
    """Returns the status, attempt, progress and error of an experiment's newest job."""
    return experiments.experiment_status(session, experiment_id)


@router.get(
    "/{experiment_id}/metrics",
    summary="Show the metrics of pretraining",
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
    """Returns the metrics of a language model's training, each downsampled by largest-triangle-three-buckets.

    If several attempts reported the same step, the values of the latest attempt are used.
    """
    return await _metrics(context, experiment_id, "metrics", keys, mode, window, max_points, from_step, to_step)


@router.get(
    "/{experiment_id}/rl-metrics",
    summary="Show the metrics of controller training",
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
    """Returns the metrics of a controller's training, downsampled like the metrics of pretraining.

    In these metrics, a step is one environment step.
    """
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
    # Read the position in the stream before the files. Each point is written to a file before it is added to the
    # stream, so the files then contain all points up to this position.
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

    # Return bytes; FastAPI would otherwise validate and copy every point again, on the event loop.
    return Response(await run_in_threadpool(read), media_type="application/json")


@router.get("/{experiment_id}/config", summary="Show the configuration", responses=problem_responses(404, 507))
def get_config(experiment_id: str, session: SessionDep, context: ContextDep) -> ConfigReply:
    """Returns the configuration of an experiment, including all defaults."""
    return experiments.read_config(session, context.store, experiment_id)


@router.get("/{experiment_id}/evaluation", summary="Show the evaluation", responses=problem_responses(404, 507))
def get_evaluation(experiment_id: str, session: SessionDep, context: ContextDep) -> ResultReply:
    """Returns validation loss, perplexity, bits per byte and samples.

    Answers 404 until the job has written these results.
    """
    experiments.find_experiment(session, experiment_id)
    return experiments.read_result(context.store, experiment_id, experiments.EVALUATION_FILE)


@router.get("/{experiment_id}/ablation", summary="Show the ablation", responses=problem_responses(404, 507))
def get_ablation(experiment_id: str, session: SessionDep, context: ContextDep) -> ResultReply:
    """Returns mean, standard deviation and confidence interval for each policy.

    Answers 404 until the job has written these results.
    """
    experiments.find_experiment(session, experiment_id)
    return experiments.read_result(context.store, experiment_id, experiments.ABLATION_FILE)


@router.get("/{experiment_id}/headroom", summary="Show the headroom", responses=problem_responses(404, 507))
def get_headroom(experiment_id: str, session: SessionDep, context: ContextDep) -> ResultReply:
    """Returns what policies gain over the best constant modulation, with confidence intervals and a verdict.

    Answers 404 until the job has written these results.
    """
    experiments.find_experiment(session, experiment_id)
    return experiments.read_result(context.store, experiment_id, experiments.HEADROOM_FILE)


@router.get(
    "/{experiment_id}/samples", summary="Show the samples of the evaluation", responses=problem_responses(404, 507)
)
def get_samples(experiment_id: str, session: SessionDep, context: ContextDep) -> SampleList:
    """Returns prompt and generated text of each sample. Answers 404 until the job has written the samples."""
    experiments.find_experiment(session, experiment_id)
    return experiments.read_samples(context.store, experiment_id)


@router.get(
    "/{experiment_id}/sample-history",
    summary="Show the samples of a training over its steps",
    responses=problem_responses(404, 507),
)
def get_sample_history(
    experiment_id: str,
    session: SessionDep,
    context: ContextDep,
    max_rows: Annotated[
        int, Query(ge=1, le=2000, alias="maxRows", description="Maximum number of steps in the reply.")
    ] = 200,
) -> SampleHistory:
    """Returns the completions of each prompt after every `evaluation.samples_every_steps` steps.

    All are generated with the same seeds. Answers 404 until the first ones exist.
    """
    experiments.find_experiment(session, experiment_id)
    return experiments.read_sample_history(context.store, experiment_id, max_rows=max_rows)
