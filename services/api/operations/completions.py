"""Converts OpenAI's completion requests to requests for the engine, and presents checkpoints as OpenAI's models.

For each prompt, the engine gets one request, which covers all choices. `completion_writer` builds the reply, and
`middleware` formats errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import anyio
from sqlalchemy.orm import Session

from common.artifacts import ArtifactStore
from common.errors import NotFoundError, TidalError
from common.redis.generation_request import GenerationRequest
from services.api.context import Context
from services.api.generations import EngineEvent
from services.api.operations import checkpoints
from services.api.operations.chat_template import template_kind
from services.api.operations.checkpoints import check_reference
from services.api.operations.generate import IsDisconnected, generation_events
from services.api.schemas.completions import CompletionRequest
from tidal_client.wire.checkpoint import CheckpointReply
from tidal_client.wire.completion import Model, ModelList
from tidal_client.wire.generation_event import EVENT_TOKEN
from tidal_client.wire.sampling import DEFAULTS

_PAGE = 200


def prepare_completions(context: Context, request: CompletionRequest) -> list[GenerationRequest]:
    """Return one request for the engine per prompt.

    Raises NotFoundError for an unknown model, and InvalidInputError for an invalid controller.
    """
    store = context.store
    checkpoint = find_reference(store, request.model)
    policy = None
    if request.rl_checkpoint is not None:
        policy = check_reference(store, request.rl_checkpoint, location="rl_checkpoint", policy=True)
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return [
        GenerationRequest(
            id=context.generations.new_id(),
            checkpoint=checkpoint,
            prompt=prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            repetition_penalty=request.repetition_penalty,
            # The engine adds 0, 1, … to this seed for the choices of the prompt. So no two texts have the same seed.
            seed=None if request.seed is None else (request.seed + number * request.texts_per_prompt) % 2**63,
            gating_mode=request.mode,
            modulation=DEFAULTS.modulation if request.modulation is None else request.modulation,
            rl_checkpoint=policy,
            stop=tuple(stop),
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=request.logit_bias,
            n=request.texts_per_prompt,
            top_log_probs=request.logprobs or 0,
            log_probs=request.logprobs is not None,
            echo=request.echo,
            trajectory=not request.stream and (request.logprobs is not None or request.texts_per_prompt > request.n),
            stream=request.stream,
        )
        for number, prompt in enumerate(request.prompts)
    ]


def model_fingerprint(store: ArtifactStore, request: GenerationRequest, version: str) -> str:
    """Return a hash of Tidal's version and of the path, time and size of the model's file.

    If two identical requests have the same hash and seed, they get the same text.
    """
    file = _weights(store, request.checkpoint)
    identity = f"{version} {request.checkpoint} {file.st_mtime_ns} {file.st_size}"
    return f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


async def collect_replies(
    context: Context, prepared: Sequence[GenerationRequest], is_disconnected: IsDisconnected
) -> list[list[EngineEvent]]:
    """Return the `prompt` and `done` events of each prompt.

    If the generation for one prompt fails, the generations for all other prompts are stopped. Raises the errors of
    `generation_events`.
    """
    found: list[list[EngineEvent]] = [[] for _ in prepared]
    async with aclosing(merged_events(context, prepared, is_disconnected)) as following:
        async for prompt, event in following:
            if event.name != EVENT_TOKEN:
                found[prompt].append(event)
    return found


async def merged_events(
    context: Context, prepared: Sequence[GenerationRequest], is_disconnected: IsDisconnected
) -> AsyncGenerator[tuple[int, EngineEvent]]:
    """Yield the events of all prompts as they arrive, with the number of the prompt.

    Raises the errors of `generation_events`.
    """
    arrived: asyncio.Queue[tuple[int, EngineEvent | Exception | None]] = asyncio.Queue()

    async def follow(number: int, request: GenerationRequest) -> None:
        try:
            async with aclosing(generation_events(context, request, is_disconnected)) as following:
                async for event in following:
                    arrived.put_nowait((number, event))
        except Exception as error:  # the loop below, which reads the queue, raises the error again
            arrived.put_nowait((number, error))
        else:
            arrived.put_nowait((number, None))

    tasks = [asyncio.create_task(follow(number, request)) for number, request in enumerate(prepared)]
    running = len(tasks)
    try:
        while running:
            number, event = await arrived.get()
            if event is None:
                running -= 1
            elif isinstance(event, Exception):
                raise event
            else:
                yield number, event
    finally:
        for task in tasks:
            task.cancel()
        # Without the shield, a cancellation of this task would interrupt the cancellation of the generations.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks, return_exceptions=True)


def list_all_models(session: Session, store: ArtifactStore) -> ModelList:
    """Return all checkpoints from which text can be generated."""
    found: list[Model] = []
    cursor: str | None = None
    while True:
        page = checkpoints.checkpoint_overview(session, store, limit=_PAGE, cursor=cursor)
        for group in page.experiments:
            found += [_model(store, checkpoint) for checkpoint in group.checkpoints if checkpoint.usable_as_base]
        cursor = page.next_cursor
        if cursor is None:
            return ModelList(data=found)


def find_model(session: Session, store: ArtifactStore, name: str) -> Model:
    """Return the model with this id or alias. Raises NotFoundError."""
    reference = find_reference(store, name)
    experiment_id, _ = reference.split("/", 1)
    with contextlib.suppress(NotFoundError):
        for checkpoint in checkpoints.experiment_checkpoints(session, store, experiment_id).checkpoints:
            if checkpoint.reference == reference:
                return _model(store, checkpoint)
    # The checkpoint is in the store, but its experiment is not in the database.
    return Model(
        id=reference,
        created=int(_weights(store, reference).st_mtime),
        vocabulary=checkpoints.model_vocabulary(store, reference),
        chat_template=template_kind(store, reference),
    )


def _model(store: ArtifactStore, checkpoint: CheckpointReply) -> Model:
    return Model(
        id=checkpoint.reference,
        created=int(checkpoint.created_at.timestamp()),
        vocabulary=checkpoint.vocabulary,
        chat_template=template_kind(store, checkpoint.reference),
    )


def find_reference(store: ArtifactStore, name: str) -> str:
    """Return the reference of a model, with aliases resolved. Raises NotFoundError `model_not_found`."""
    try:
        return check_reference(store, name, location="model", policy=False)
    except TidalError as error:
        message = f"{error.message.removeprefix('model: ')}; GET /v1/models lists the models"
        errors = [{"location": "model", "message": message}]
        raise NotFoundError(message, errors=errors, code="model_not_found") from None


def _weights(store: ArtifactStore, reference: str) -> os.stat_result:
    """Return the file status (`os.stat`) of the model's file.

    If the checkpoint is a folder, return the file status of its manifest.

    Raises NotFoundError when the checkpoint has been removed.
    """
    try:
        path = store.resolve(reference)
        return (path / "manifest.json" if path.is_dir() else path).stat()
    except (FileNotFoundError, NotFoundError):
        raise NotFoundError(
            f"{reference} was removed meanwhile; GET /v1/models lists the models", code="model_not_found"
        ) from None
