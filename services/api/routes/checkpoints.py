"""`/api/checkpoints` and the checkpoints of one experiment, with download."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy.orm import Session
from starlette.responses import FileResponse

from services.api.auth import By, ContextDep, Reader
from services.api.context import session_of
from services.api.operations import checkpoint_removal, checkpoints
from services.api.operations.experiments import find_experiment
from services.api.paging import Cursor, Limit
from services.api.schemas.problems import problem_responses
from tidal_client.wire.checkpoint import CheckpointList, CheckpointOverview

router = APIRouter(tags=["checkpoints"], dependencies=[Reader])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.get("/api/checkpoints", summary="List all checkpoints")
def list_all(session: SessionDep, context: ContextDep, limit: Limit = 50, cursor: Cursor = None) -> CheckpointOverview:
    """Returns checkpoints, grouped by experiment, newest experiment first.

    Each checkpoint is marked as a language model or a controller.
    """
    return checkpoints.checkpoint_overview(
        session, context.store, limit=limit, cursor=cursor, root_path=context.settings.root_path.rstrip("/")
    )


@router.get(
    "/api/experiments/{experiment_id}/checkpoints",
    summary="List the checkpoints of an experiment",
    responses=problem_responses(404),
)
def list_of_experiment(experiment_id: str, session: SessionDep, context: ContextDep) -> CheckpointList:
    """Returns the final files first, then the training checkpoints, newest first."""
    return checkpoints.experiment_checkpoints(
        session, context.store, experiment_id, root_path=context.settings.root_path.rstrip("/")
    )


@router.get(
    "/api/experiments/{experiment_id}/checkpoints/{name:path}",
    summary="Download a checkpoint",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file"},
        206: {"content": {"application/octet-stream": {}}, "description": "The part requested with `Range`"},
        **problem_responses(404, 416),
    },
)
def download(
    experiment_id: str,
    name: str,
    context: ContextDep,
    session: SessionDep,
    form: Annotated[
        checkpoints.Format | None,
        Query(alias="format", description="The file format. Final models exist in both formats."),
    ] = None,
) -> FileResponse:
    """Sends a checkpoint file, or the vocabulary of the experiment.

    `name` is a name from the list of checkpoints, or best, latest or final. It is tokenizer.json for the vocabulary of
    a model that has its own. Supports `Range`, with which a client can
    continue an interrupted download.
    """
    find_experiment(session, experiment_id)
    path = checkpoints.file_to_send(context.store, experiment_id, name, form)
    filename = path.name if path.name != checkpoints.WEIGHTS else f"{path.parent.name}.safetensors"
    return FileResponse(path, filename=filename, media_type="application/octet-stream")


@router.delete(
    "/api/experiments/{experiment_id}/checkpoints/{name:path}",
    summary="Delete a checkpoint",
    status_code=204,
    responses=problem_responses(404, 409),
)
def delete(experiment_id: str, name: str, context: ContextDep, caller: By) -> None:
    """Deletes a checkpoint.

    `name` is a name from the list of checkpoints; aliases are not accepted. Answers 409 until all jobs that need the
    checkpoint have ended. Others' checkpoints need the scope admin.
    """
    with context.sessions.begin() as session:
        checkpoint_removal.delete_checkpoint_row(session, context.store, experiment_id, name, caller)
    context.store.delete_checkpoint(experiment_id, name)
