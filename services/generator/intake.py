"""Requests between the hand-over and their first token: taken from Redis, their models loaded, in order.

Models load in a thread of their own, so that a new checkpoint holds up neither the texts that are being written nor the
requests for models that are loaded. A request is taken from Redis only when there may be room for it, so that it can
expire there. Leaves out: decoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from pydantic import ValidationError
from redis import Redis

from common.controller import GatingPolicy
from common.errors import InvalidInputError, TidalError, UnavailableError
from common.generation import DecodingModel
from common.redis import keys
from common.redis.generation_request import GenerationRequest
from services.generator.model_cache import ModelCache

WAIT_SECONDS = 0.02
"""Longest wait for a model while no text runs. New requests may have to wait as long for the next turn."""

Models = Future[tuple[DecodingModel, GatingPolicy | None]]


@dataclass
class Loading:
    """A request whose model and policy are loading or loaded. `passed` counts the texts that have overtaken it."""

    request: GenerationRequest
    models: Models
    passed: int = 0


@dataclass(frozen=True)
class Refused:
    """A request that will not run. `error` is sent to its client; with None no event is sent."""

    request_id: str
    error: TidalError | None


class Intake:
    """Requests that do not run yet: `waiting` holds ids, `loading` the requests that were taken from Redis.

    `name` is the name of the engine, by which the api finds the engine that took a request.
    """

    def __init__(self, redis: Redis, models: ModelCache) -> None:
        self.name = "engine"
        self._redis = redis
        self._models = models
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.waiting: deque[str] = deque()
        self.loading: deque[Loading] = deque()

    def keep_loaded(self, in_use: Callable[[], Collection[DecodingModel]]) -> None:
        """Set a function that returns models to keep loaded. The loader's thread calls it too."""
        self._models.in_use = in_use

    @property
    def loaded(self) -> int:
        """Number of requests whose models are loaded and that wait only for room."""
        return sum(loading.models.done() for loading in self.loading)

    @property
    def ids(self) -> list[str]:
        """Ids of all requests, waiting and loading."""
        return [*self.waiting, *(loading.request.id for loading in self.loading)]

    def close(self) -> None:
        """End the loader."""
        self._loader.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[Refused]:
        """Take up to `count` waiting requests and return those that cannot run. Raises RedisError."""
        ids = [self.waiting[number] for number in range(min(count, len(self.waiting)))]
        if not ids:
            return []
        # In one transaction, because the api regards a request as lost that is neither in Redis nor marked as begun.
        with self._redis.pipeline(transaction=True) as pipeline:
            for request_id in ids:
                pipeline.getdel(keys.generate_request(request_id))
                pipeline.exists(keys.generate_cancelled(request_id))
                pipeline.set(keys.generate_begun(request_id), self.name, nx=True, ex=keys.GENERATE_TTL_SECONDS)
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
            self.loading.append(Loading(request, self._held(request) or self._loader.submit(self._load, request)))
        return refused

    def blocked(self, slots: int) -> bool:
        """Return whether a request was overtaken by so many texts that all others must wait for it."""
        return any(loading.passed >= slots for loading in self.loading)

    def next_loaded(self, room: int, slots: int) -> Loading | None:
        """Remove and return the first loaded request whose texts fit into `room`, or exceed `slots` and never will.

        A request that does not fit is overtaken by at most `slots` texts, so that many small requests cannot starve it.
        The model of the returned request stays loaded until `release`.
        """
        passed: list[Loading] = []
        for loading in self.loading:
            if not loading.models.done():
                continue
            if loading.request.n <= room or loading.request.n > slots:
                self.loading.remove(loading)
                for other in passed:
                    other.passed += loading.request.n
                return loading
            if loading.passed >= slots:
                return None
            passed.append(loading)
        return None

    def wait(self) -> None:
        """Wait up to `WAIT_SECONDS` for any model."""
        wait([loading.models for loading in self.loading], WAIT_SECONDS, FIRST_COMPLETED)

    def release(self, request_id: str) -> None:
        """Stop keeping the model of this request loaded, because the request runs now or never will."""
        self._models.release(request_id)

    def drop(self, request_id: str) -> Refused | None:
        """Remove a request whose client has disconnected; return None if it is not here."""
        if request_id in self.waiting:
            self.waiting.remove(request_id)
            return Refused(request_id, _client_gone())
        for loading in self.loading:
            if loading.request.id == request_id:
                self.loading.remove(loading)
                loading.models.cancel()
                loading.models.add_done_callback(lambda _: self._models.release(request_id))
                return Refused(request_id, _client_gone())
        return None

    def _held(self, request: GenerationRequest) -> Models | None:
        """Return models that are loaded already, without the loader. None if the loader must load them or fails to."""
        try:
            found = self._models.held(request.checkpoint, request.rl_checkpoint, request.id)
        except (TidalError, OSError):
            return None
        if found is None:
            return None
        models: Models = Future()
        models.set_result(found)
        return models

    def _load(self, request: GenerationRequest) -> tuple[DecodingModel, GatingPolicy | None]:
        policy = self._models.policy(request.rl_checkpoint) if request.rl_checkpoint else None
        return self._models.model(request.checkpoint, request.id), policy


def _too_late() -> UnavailableError:
    return UnavailableError("the request waited too long for the generator; try again", code="queue_timeout")


def _client_gone() -> UnavailableError:
    return UnavailableError("the generation was cancelled before it began", code="cancelled")
