"""`/api/datasets`: uploaded texts on which language models can be trained."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from common.config.data import MOST_TEXT_FIELD
from common.datasets import DatasetManifest
from common.db import require_schema
from services.api.auth import By, ContextDep, Reader
from services.api.callers import Caller
from services.api.context import Context, session_of
from services.api.operations import dataset_upload, datasets
from services.api.schemas.problems import problem_responses
from tidal_client.vocabulary import DatasetFormat
from tidal_client.wire.dataset import DatasetDetail, DatasetList, DatasetUploaded

PATH = "/api/datasets"
router = APIRouter(prefix=PATH, tags=["datasets"])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.get("", summary="List datasets", dependencies=[Reader])
def list_datasets(session: SessionDep, context: ContextDep) -> DatasetList:
    """Returns all datasets, newest first."""
    return datasets.all_datasets(session, context.datasets)


@router.post(
    "",
    summary="Upload a dataset",
    status_code=201,
    response_model=DatasetUploaded,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    responses={
        200: {"model": DatasetUploaded, "description": "A dataset with this name and text already existed"},
        **problem_responses(408, 409, 503, 507),
    },
)
async def upload(
    request: Request,
    response: Response,
    context: ContextDep,
    caller: By,
    name: Annotated[
        str,
        Query(
            max_length=200,
            description="The name of the dataset, as used in `data.source`. A suffix such as .txt "
            "determines the format and is removed from the name.",
        ),
    ],
    kind: Annotated[
        DatasetFormat | None,
        Query(alias="format", description="The format. In a txt file, `<|endoftext|>` separates documents."),
    ] = None,
    text_field: Annotated[
        str,
        Query(
            alias="textField",
            min_length=1,
            max_length=MOST_TEXT_FIELD,
            description="The field (jsonl) or column (parquet) that contains the text.",
        ),
    ] = "text",
) -> DatasetUploaded | Response:
    """Stores the body as a dataset and submits a job that tokenises it.

    The body is the file itself, which may be compressed with gzip:
    `curl -X POST -T stories.txt "…/api/datasets?name=stories.txt"`. The uncompressed text may have up to
    TIDAL_DATASET_MAX_MB MiB. The file is checked while it arrives; an invalid or incomplete file is not stored.
    Repeating an upload changes nothing. Answers 409 if a dataset with this name and another text exists.
    """
    parameters = dataset_upload.check_parameters(name, kind, text_field)
    await run_in_threadpool(require_schema, context.engine)  # check the schema now, not after a long upload
    length = request.headers.get("content-length", "")
    try:
        manifest, created = await dataset_upload.store_upload(
            request.stream(),
            int(length) if length.isdigit() else None,
            context.datasets,
            context.settings,
            parameters,
            context.decoders,
        )
    except ClientDisconnect:
        return Response(status_code=204)  # the client has disconnected
    reply = await run_in_threadpool(_tokenise, context, manifest, caller, created)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{context.settings.root_path.rstrip('/')}{PATH}/{manifest.name}"
    return reply


@router.get("/{name}", summary="Show a dataset", dependencies=[Reader], responses=problem_responses(404))
def get(name: str, session: SessionDep, context: ContextDep) -> DatasetDetail:
    """Returns a dataset with the experiments that use it."""
    return datasets.get_dataset(session, context.datasets, name)


@router.delete(
    "/{name}",
    summary="Delete a dataset",
    status_code=204,
    responses=problem_responses(404, 409),
)
def delete(name: str, context: ContextDep, caller: By) -> None:
    """Deletes the text and the tokens of a dataset, but not the models that were trained on it.

    Answers 409 until all jobs that need the dataset have ended. Others' datasets need the scope admin.
    """
    datasets.delete_dataset(context.sessions, context.datasets, name, caller)


def _tokenise(context: Context, manifest: DatasetManifest, caller: Caller, created: bool) -> DatasetUploaded:
    with context.sessions.begin() as session:
        reply = datasets.ensure_tokenised(
            session, context.settings, context.datasets, manifest, caller, created=created
        )
    context.outbox.wake()
    return reply
