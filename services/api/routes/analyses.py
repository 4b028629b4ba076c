"""`POST /api/analyze-trajectories` and the saved analyses."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services.api.auth import By, ContextDep, Generator, Reader
from services.api.context import session_of
from services.api.generation_replies import encode_event, enforce_rate_limit, stream_response
from services.api.operations import analyses, analyze
from services.api.operations.generate import ClientDisconnected
from services.api.paging import Cursor, Limit
from services.api.schemas.analyses import AnalyzeRequest, SaveAnalysisRequest
from services.api.schemas.problems import problem_responses
from tidal_client.vocabulary import AnalysisKind
from tidal_client.wire.analysis import AnalysesDeleted, AnalysisList, AnalysisResult, SavedAnalysis

router = APIRouter(tags=["analyses"])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.post(
    "/api/analyze-trajectories",
    summary="Analyse the modulation",
    response_model=AnalysisResult,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The analysis; with `stream`, server-sent events"},
        **problem_responses(429, 503),
    },
)
async def analyze_trajectories(
    body: AnalyzeRequest,
    request: Request,
    context: ContextDep,
    caller: Generator,
) -> Response:
    """Generates texts from the prompts and analyses their modulation.

    Needs a token only if reads need one, and is rate-limited like generation; one analysis counts as one generation.
    Answers 422 `analysis_too_long` if the analysis must run as a job, and 422 `empty_trajectory` if no token was
    generated for a prompt. With `stream`, sends `progress` events, then `done` with the whole result.
    """
    if body.stream:
        context.stream_clients.require_room()
    headers = await enforce_rate_limit(context, request, caller)
    prepared = await run_in_threadpool(analyze.prepare_analysis, context.store, body)
    try:
        if body.stream:
            events = analyze.analysis_events(context, prepared, request.is_disconnected)
            return await stream_response(context, events, encode_event, headers)
        result = await analyze.run_analysis(context, prepared, request.is_disconnected)
    except ClientDisconnected:
        return Response(status_code=204)  # the client has disconnected
    return Response(result, media_type="application/json", headers=headers)


@router.get(
    "/api/experiments/{experiment_id}/analyses",
    summary="List saved analyses",
    dependencies=[Reader],
    responses=problem_responses(404),
)
def list_analyses(
    experiment_id: str,
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: AnalysisKind | None = None,
    derived: Annotated[
        bool, Query(description="Include the analyses from jobs that used this experiment's checkpoints.")
    ] = True,
) -> AnalysisList:
    """Returns the analyses of an experiment without their results, newest first."""
    return analyses.analyses_page(session, experiment_id, limit=limit, cursor=cursor, kind=kind, derived=derived)


@router.post(
    "/api/experiments/{experiment_id}/analyses",
    summary="Save an analysis",
    status_code=201,
    responses=problem_responses(404),
)
def save(
    experiment_id: str, body: SaveAnalysisRequest, context: ContextDep, caller: By, response: Response
) -> SavedAnalysis:
    """Saves the reply of `POST /api/analyze-trajectories` with an experiment."""
    with context.sessions.begin() as session:
        saved = analyses.save_analysis(session, experiment_id, body, caller)
    response.headers["Location"] = f"{context.settings.root_path.rstrip('/')}/api/analyses/{saved.id}"
    return saved


@router.delete(
    "/api/experiments/{experiment_id}/analyses",
    summary="Delete all analyses of an experiment",
    responses=problem_responses(404, 409),
)
def delete_all(experiment_id: str, context: ContextDep, caller: By) -> AnalysesDeleted:
    """Deletes the analyses that are saved with this experiment.

    Analyses that belong to the experiments of analysis jobs remain. Others' analyses need the scope admin.
    """
    with context.sessions.begin() as session:
        return AnalysesDeleted(deleted=analyses.delete_analyses(session, experiment_id, caller))


@router.get(
    "/api/analyses/{analysis_id}",
    summary="Show a saved analysis",
    dependencies=[Reader],
    responses=problem_responses(404),
)
def get(analysis_id: str, session: SessionDep) -> SavedAnalysis:
    """Returns a saved analysis with its result."""
    return analyses.get_analysis(session, analysis_id)


@router.delete(
    "/api/analyses/{analysis_id}",
    summary="Delete a saved analysis",
    status_code=204,
    responses=problem_responses(404, 409),
)
def delete(analysis_id: str, context: ContextDep, caller: By) -> None:
    """Deletes a saved analysis.

    Answers 409 until the job that created the analysis has ended, because the job may save it again. Others' analyses
    need the scope admin.
    """
    with context.sessions.begin() as session:
        analyses.delete_analysis(session, analysis_id, caller)
