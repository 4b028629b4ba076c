"""`/v1`: completions, chat and models for clients of OpenAI's API. Errors have OpenAI's format."""

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
from services.api.operations.chat import ChatWriter, to_completion
from services.api.operations.completion_writer import CompletionWriter
from services.api.operations.generate import ClientDisconnected, build_reply
from services.api.schemas.chat import ChatRequest
from services.api.schemas.completions import CompletionRequest, error_body
from services.api.schemas.problems import problem_responses
from services.api.streaming.clients import LiveStream
from tidal_client.wire.chat import ChatCompletion
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
    return await _answer(context, request, body, headers, None)


@router.post(
    "/chat/completions",
    summary="Answer in a conversation",
    response_model=ChatCompletion,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The messages; with `stream`, their parts"},
        **problem_responses(404, 429, 503),
    },
)
async def create_chat(
    body: ChatRequest,
    request: Request,
    context: ContextDep,
    caller: Generator,
) -> Response:
    """Generates messages like OpenAI's chat completions, with the additional parameters of `/v1/completions`.

    The model's chat template makes the prompt of the messages; `/v1/models` names the models that have one. For the
    others, each message becomes a line such as `User: Hello`, and a reply ends before the next line of the user.
    """
    if body.stream:
        context.stream_clients.require_room()
    headers = await enforce_rate_limit(context, request, caller)
    completion = await run_in_threadpool(to_completion, context, body)
    return await _answer(context, request, completion, headers, ChatWriter(body))


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


async def _answer(
    context: Context,
    request: Request,
    body: CompletionRequest,
    headers: dict[str, str],
    chat: ChatWriter | None,
) -> Response:
    """Return the reply to a completion request, converted by `chat` if it comes from a conversation."""
    prepared = await run_in_threadpool(operation.prepare_completions, context, body)
    name = await run_in_threadpool(operation.model_fingerprint, context.store, prepared[0], request.app.version)
    writer = CompletionWriter(body, name)
    try:
        if body.stream:
            return await _stream(context, request, writer, prepared, headers, chat)
        events = await operation.collect_replies(context, prepared, request.is_disconnected)
    except ClientDisconnected:
        return Response(status_code=204)  # the client has disconnected
    characters = sum(len(event.data) for prompt_events in events for event in prompt_events)

    def build() -> bytes:
        reply = writer.complete_reply(events)
        return (reply if chat is None else chat.complete_reply(reply)).model_dump_json().encode()

    return Response(await build_reply(characters, build), media_type="application/json", headers=headers)


async def _stream(
    context: Context,
    request: Request,
    writer: CompletionWriter,
    prepared: list[GenerationRequest],
    headers: dict[str, str],
    chat: ChatWriter | None,
) -> LiveStream:
    """Return the streamed reply once its first event has arrived.

    An error before that event thus becomes an ordinary error reply.
    """
    events = operation.merged_events(context, prepared, request.is_disconnected)
    first = await anext(events)

    def encode(part: Completion) -> bytes:
        shown = part.model_dump_json() if chat is None else chat.chunk(part).model_dump_json()
        return f"data: {shown}\n\n".encode()

    async def body() -> AsyncGenerator[bytes]:
        try:
            async with aclosing(events):
                for part in writer.stream_parts(*first):
                    yield encode(part)
                async for prompt, event in events:
                    for part in writer.stream_parts(prompt, event):
                        yield encode(part)
                for part in writer.final_parts():
                    yield encode(part)
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
