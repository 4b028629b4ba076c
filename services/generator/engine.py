"""One generate request from Redis to its reply: load, generate, stream.

`Engine.handle(request_id)` never raises for a fault of the request: the client hears of it as an `error` event. It
raises what ends the process: a fault of the accelerator, after which no model in it can be trusted. Leaves out: the
process around it (`engine_child`).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from common.errors import InvalidInputError, TidalError, UnavailableError
from common.generation import Generation, GenerationSettings, TokenStep, generate_batch
from common.generation.noise import fresh_seed
from common.jobs.generation_request import GenerationRequest
from common.logging import get_logger
from common.metrics import keys
from services.generator.model_cache import ModelCache
from services.generator.reply_stream import ReplyStream

log = get_logger(__name__)


class Engine:
    """Takes requests one after the other."""

    def __init__(self, redis: Redis, models: ModelCache, *, total_seconds: float) -> None:
        self._redis = redis
        self._models = models
        self._total_seconds = total_seconds

    def handle(self, request_id: str) -> None:
        """Answer one request. A request that was answered before, or is nobody's any more, is left alone.

        Raises torch.AcceleratorError after a fault of the device; the client has been told.
        """
        try:
            self._answer(request_id)
        except RedisError as error:
            # Without Redis there is nobody to tell; the api's own deadline answers the client.
            log.warning("request lost its way to the client", request_id=request_id, error=str(error))

    def _answer(self, request_id: str) -> None:
        raw = self._redis.getdel(keys.generate_request(request_id))
        if raw is None:
            self._too_late(request_id)
            return
        reply = ReplyStream(self._redis, request_id, send_tokens=False)
        started = time.monotonic()
        try:
            request = GenerationRequest.model_validate_json(raw)
            reply = ReplyStream(self._redis, request_id, send_tokens=request.stream)
            reply.done(wire_reply(self._generate(request, reply)))
        except TidalError as error:
            log.info("request refused", request_id=request_id, code=error.code, error=error.message)
            reply.error(error)
        except ValidationError as error:
            reply.error(InvalidInputError(f"the request cannot be read: {error}"))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            log.warning("out of accelerator memory", request_id=request_id)
            reply.error(UnavailableError("the generator is out of accelerator memory; try again", code="out_of_memory"))
        except torch.AcceleratorError:
            reply.error(TidalError("the accelerator failed; the generator restarts", code="accelerator_failed"))
            raise
        except RedisError:
            raise
        except Exception:
            log.exception("generation failed", request_id=request_id)
            reply.error(TidalError("generation failed inside the server; its log has the details", code="internal"))
        else:
            log.info("request answered", request_id=request_id, seconds=round(time.monotonic() - started, 3))

    def _too_late(self, request_id: str) -> None:
        """The request expired in the queue, unless its stream shows that it was answered already."""
        if not self._redis.exists(keys.generate_stream(request_id)):
            error = UnavailableError("the request waited too long for the generator; try again", code="queue_timeout")
            ReplyStream(self._redis, request_id, send_tokens=False).error(error)

    def _generate(self, request: GenerationRequest, reply: ReplyStream) -> Generation:
        deadline = time.monotonic() + self._total_seconds
        if self._redis.exists(keys.generate_cancelled(request.id)):
            reply.cancelled = True
        model = self._models.model(request.checkpoint)
        policy = self._models.policy(request.rl_checkpoint) if request.rl_checkpoint else None
        settings = GenerationSettings(
            max_tokens=request.max_tokens,
            gating_mode=request.gating_mode,
            modulation=request.modulation,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            repetition_penalty=request.repetition_penalty,
            policy=policy,
        )
        count = 0

        def on_token(_: int, step: TokenStep) -> None:
            nonlocal count
            reply.token(wire_token(count, step))
            count += 1

        def cancelled() -> bool:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"generation took more than {self._total_seconds:g} s; ask for fewer tokens", code="timeout"
                )
            return reply.cancelled

        seeds = [fresh_seed() if request.seed is None else request.seed]
        return generate_batch(model, [request.prompt], settings, seeds=seeds, on_token=on_token, cancelled=cancelled)[0]


def wire_token(index: int, step: TokenStep) -> dict[str, Any]:
    """One token as clients see it."""
    return {
        "index": index,
        "id": step.token_id,
        "text": step.text,
        "modulation": step.modulation,
        "temperature": step.temperature,
        "topK": step.top_k,
        "topP": step.top_p,
        "repetitionPenalty": step.repetition_penalty,
        "logProb": step.log_prob,
        "entropy": step.entropy,
        "samplingEntropy": step.sampling_entropy,
    }


def wire_reply(generation: Generation) -> dict[str, Any]:
    """The whole reply as clients see it."""
    effective = {_camel(name): value for name, value in asdict(generation.effective).items()}
    ranges = generation.effective.modulation_config
    effective["modulationConfig"] = ranges.model_dump(mode="json") if ranges is not None else None
    return {
        "text": generation.text,
        "tokensGenerated": len(generation.token_ids),
        "promptTokens": len(generation.prompt_token_ids),
        "elapsedMs": round(generation.elapsed_seconds * 1000, 3),
        "finishReason": str(generation.finish_reason),
        "truncated": generation.truncated,
        "trajectory": [wire_token(i, step) for i, step in enumerate(generation.trajectory)],
        "effective": effective,
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
