"""`POST /api/generate`: generates text from a checkpoint, as one reply or token by token."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from services.api.auth import ContextDep, Generator
from services.api.generation_replies import encode_event, enforce_rate_limit, stream_response
from services.api.generations import EngineEvent
from services.api.operations import generate as operation
from services.api.schemas.generate import GenerateRequest
from services.api.schemas.problems import problem_responses
from tidal_client.wire.generation import GenerateReply

router = APIRouter(tags=["generation"])


@router.post(
    "/api/generate",
    summary="Generate text",
    response_model=GenerateReply,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The text; with `stream`, its tokens"},
        **problem_responses(429, 503),
    },
)
async def generate(
    body: GenerateRequest,
    request: Request,
    context: ContextDep,
    caller: Generator,
) -> Response:
    """Generates text from a checkpoint. Needs a token only if reads need one. Callers without a token are rate-limited
    by address (`RateLimit` headers, 429). Answers 503 when no generator accepts the request within 30 s, or when the
    text is not finished within 120 s. With `stream`, sends `token` events, then `done` with the whole reply."""
    if body.stream:
        context.stream_clients.require_room()
    headers = await enforce_rate_limit(context, request, caller)
    prepared = await run_in_threadpool(operation.prepare_generation, context, body)
    try:
        if body.stream:
            batches = operation.event_batches(context, prepared, request.is_disconnected)
            return await stream_response(context, batches, _encode, headers)
        reply = await operation.generate_reply(context, prepared, request.is_disconnected)
    except operation.ClientDisconnected:
        return Response(status_code=204)  # the client has disconnected
    return Response(reply, media_type="application/json", headers=headers)


def _encode(batch: list[EngineEvent]) -> bytes:
    return b"".join(map(encode_event, batch))
