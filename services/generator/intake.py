"""Requests between the hand-over and their first token: taken from Redis, their models loaded, in order.

Models load in a thread of their own, so that a new checkpoint does not hold up the texts that are being written. A
request is taken from Redis only when there may be room for it, so that it can expire there. Leaves out: decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from pydantic import ValidationError
from redis import Redis

from common.controller import GatingPolicy
from common.errors import InvalidInputError, TidalError, UnavailableError
from common.generation import DecodingModel
from common.jobs.generation_request import GenerationRequest
from common.metrics import keys
from services.generator.model_cache import ModelCache

LOADED_SECONDS = 0.005
"""What a step waits for models that are loaded already."""


@dataclass(frozen=True)
class Loading:
    """A request whose model and policy are on their way."""

    request: GenerationRequest
    models: Future[tuple[DecodingModel, GatingPolicy | None]]


@dataclass(frozen=True)
class Refused:
    """A request that will not run; without an error nobody is to hear of it."""

    request_id: str
    error: TidalError | None


class Intake:
    """`waiting` were handed over, `loading` taken from Redis."""

    def __init__(self, redis: Redis, models: ModelCache) -> None:
        self._redis = redis
        self._models = models
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.waiting: deque[str] = deque()
        self.loading: deque[Loading] = deque()

    def keep_loaded(self, in_use: Callable[[], Collection[DecodingModel]]) -> None:
        """Models that stay loaded, whatever else is asked for; asked from the loader's thread."""
        self._models.in_use = in_use

    def close(self) -> None:
        """End the loader."""
        self._loader.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[Refused]:
        """Take up to `count` of the waiting requests; those that cannot run come back. RedisError."""
        ids = [self.waiting[number] for number in range(min(count, len(self.waiting)))]
        if not ids:
            return []
        with self._redis.pipeline(transaction=False) as pipeline:
            for request_id in ids:
                pipeline.getdel(keys.generate_request(request_id))
                pipeline.exists(keys.generate_cancelled(request_id))
                pipeline.set(keys.generate_begun(request_id), "1", nx=True, ex=keys.GENERATE_TTL_SECONDS)
            answers = pipeline.execute()
        refused = []
        for number, request_id in enumerate(ids):
            self.waiting.popleft()
            raw, gone, first = answers[3 * number : 3 * number + 3]
            if raw is None:
                refused.append(Refused(request_id, _too_late() if first else None))
                continue
            if gone:
                refused.append(Refused(request_id, _client_gone()))
                continue
            try:
                request = GenerationRequest.model_validate_json(raw)
            except ValidationError as error:
                refused.append(Refused(request_id, InvalidInputError(f"the request cannot be read: {error}")))
                continue
            self.loading.append(Loading(request, self._loader.submit(self._load, request)))
        return refused

    def next_loaded(self, *, patient: bool) -> Loading | None:
        """The first request, once its models are there; `patient` waits for them, otherwise not for long."""
        if not self.loading:
            return None
        first = self.loading[0]
        done, _ = wait([first.models], None if patient else LOADED_SECONDS)
        return first if done else None

    def _load(self, request: GenerationRequest) -> tuple[DecodingModel, GatingPolicy | None]:
        policy = self._models.policy(request.rl_checkpoint) if request.rl_checkpoint else None
        return self._models.model(request.checkpoint), policy


def _too_late() -> UnavailableError:
    return UnavailableError("the request waited too long for the generator; try again", code="queue_timeout")


def _client_gone() -> UnavailableError:
    return UnavailableError("the client left before the generation began", code="cancelled")
