"""`/v1`: completions and models for clients of OpenAI's API. Errors have OpenAI's format."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from common.errors import TidalError
from common.redis.generation_request import GenerationRequest
from services.api.auth import ContextDep, Generator, GeneratorOnly
from services.api.context import Context, session_of
from services.api.generation_replies import enforce_rate_limit
from services.api.operations import completions as operation
from services.api.operations.completion_writer import CompletionWriter
from services.api.operations.generate import ClientDisconnected, build_reply
from services.api.schemas.completions import CompletionRequest, error_body
from services.api.schemas.problems import problem_responses
from services.api.streaming.clients import LiveStream
from tidal_client.wire.completion import Completion, Model, ModelList

router = APIRouter(prefix="/v1", tags=["openai"])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]


@router.post(
    "/completions",
    summary="Complete a text",
    response_model=Completion,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The texts; with `stream`, their parts"},
        **problem_responses(404, 429, 503),
    },
)
async def create(
    body: CompletionRequest,
    request: Request,
    context: ContextDep,
    caller: Generator,
) -> Response:
    """Generates text like OpenAI's completions, with the additional parameters `top_k`, `repetition_penalty`,
    `gating_mode`, `modulation` and `rl_checkpoint`.

    The endpoint has the same rate limits and time limits as `/api/generate`.
    """
    if body.stream:
        context.stream_clients.require_room()
    headers = await enforce_rate_limit(context, request, caller)
    prepared = await run_in_threadpool(operation.prepare_completions, context, body)
    name = await run_in_threadpool(operation.model_fingerprint, context.store, prepared[0], request.app.version)
    writer = CompletionWriter(body, name)
    try:
        if body.stream:
            return await _stream(context, request, writer, prepared, headers)
        events = await operation.collect_replies(context, prepared, request.is_disconnected)
    except ClientDisconnected:
        return Response(status_code=204)  # the client has disconnected
    characters = sum(len(event.data) for prompt_events in events for event in prompt_events)
    reply = await build_reply(characters, lambda: writer.complete_reply(events).model_dump_json().encode())
    return Response(reply, media_type="application/json", headers=headers)


@router.get("/models", summary="List the models", dependencies=[GeneratorOnly])
def list_models(session: SessionDep, context: ContextDep) -> ModelList:
    """Returns all checkpoints from which text can be generated."""
    return operation.list_all_models(session, context.store)


@router.get(
    "/models/{name:path}", summary="Show a model", dependencies=[GeneratorOnly], responses=problem_responses(404)
)
def get_model(name: str, session: SessionDep, context: ContextDep) -> Model:
    """Returns a model by its id, or by `<experiment id>/best`, `latest` or `final`."""
    return operation.find_model(session, context.store, name)


async def _stream(
    context: Context,
    request: Request,
    writer: CompletionWriter,
    prepared: list[GenerationRequest],
    headers: dict[str, str],
) -> LiveStream:
    """Return the streamed reply once its first event has arrived.

    An error before that event thus becomes an ordinary error reply.
    """
    events = operation.merged_events(context, prepared, request.is_disconnected)
    first = await anext(events)

    async def body() -> AsyncGenerator[bytes]:
        try:
            async with aclosing(events):
                for part in writer.stream_parts(*first):
                    yield _encode(part)
                async for prompt, event in events:
                    for part in writer.stream_parts(prompt, event):
                        yield _encode(part)
                for part in writer.final_parts():
                    yield _encode(part)
        except ClientDisconnected:
            return
        except TidalError as error:
            context.paths.hide_in(error)
            problem = error_body(error.status, error.message, code=error.code, param=None)
            yield f"data: {json.dumps(problem)}\n\n".encode()
            return
        yield b"data: [DONE]\n\n"

    reply = LiveStream(body(), context.stream_clients)
    reply.headers.update(headers)
    return reply


def _encode(part: Completion) -> bytes:
    return f"data: {part.model_dump_json()}\n\n".encode()
