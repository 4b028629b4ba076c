"""The queue of the requests that the engine has received and not started yet.

The queue takes the requests from Redis and loads their models in a separate thread. Therefore a new checkpoint delays
neither running sequences nor requests whose models are already loaded. A request stays in Redis, where it can expire,
until a slot may be free for it. Decoding is in `services.generator.engine`.
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
"""Longest time in seconds for which an idle engine waits for a model to load.

A request that arrives during this wait is delayed until the wait ends.
"""

Models = Future[tuple[DecodingModel, GatingPolicy | None]]


@dataclass
class LoadingRequest:
    """A request that was taken from Redis and whose models are being loaded or are loaded.

    `passed` is the number of sequences that started before it although their requests came later.
    """

    request: GenerationRequest
    models: Models
    passed: int = 0


@dataclass(frozen=True)
class RefusedRequest:
    """A request that will not be executed. `error` is sent to its client; None means that nothing is sent."""

    request_id: str
    error: TidalError | None


class AdmissionQueue:
    """The requests that the engine has not started yet, in two queues.

    `waiting` contains the ids of requests that are still in Redis; `loading` contains the requests that were taken from
    Redis. `name` is the name of the engine. When a request is taken, this name is stored in Redis, so that the api
    knows which engine took the request.
    """

    def __init__(self, redis: Redis, models: ModelCache) -> None:
        self.name = "engine"
        self._redis = redis
        self._models = models
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.waiting: deque[str] = deque()
        self.loading: deque[LoadingRequest] = deque()

    def keep_loaded(self, in_use: Callable[[], Collection[DecodingModel]]) -> None:
        """Set the function that returns the models to keep loaded. The loader thread also calls this function."""
        self._models.in_use = in_use

    @property
    def loaded(self) -> int:
        """Number of requests whose models are loaded; they wait only for free slots."""
        return sum(loading.models.done() for loading in self.loading)

    @property
    def ids(self) -> list[str]:
        """Ids of all requests in `waiting` and in `loading`."""
        return [*self.waiting, *(loading.request.id for loading in self.loading)]

    def close(self) -> None:
        """End the loader thread."""
        self._loader.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[RefusedRequest]:
        """Take up to `count` waiting requests from Redis, and return those that cannot run. Raises RedisError."""
        ids = [self.waiting[number] for number in range(min(count, len(self.waiting)))]
        if not ids:
            return []
        # This must be one transaction, because the api treats a request as lost if it is neither in Redis nor marked as
        # started.
        with self._redis.pipeline(transaction=True) as pipeline:
            for request_id in ids:
                pipeline.getdel(keys.generate_request(request_id))
                pipeline.exists(keys.generate_cancelled(request_id))
                pipeline.set(keys.generate_begun(request_id), self.name, nx=True, ex=keys.GENERATE_TTL_SECONDS)
            answers = pipeline.execute()
        refused = []
        for number, request_id in enumerate(ids):
            self.waiting.popleft()
            raw, cancelled, first = answers[3 * number : 3 * number + 3]
            if raw is None:
                refused.append(RefusedRequest(request_id, _too_late() if first else None))
                continue
            if cancelled:
                refused.append(RefusedRequest(request_id, _cancelled_before_start()))
                continue
            try:
                request = GenerationRequest.model_validate_json(raw)
            except ValidationError as error:
                refused.append(RefusedRequest(request_id, InvalidInputError(f"the request is invalid: {error}")))
                continue
            self.loading.append(
                LoadingRequest(request, self._models_if_loaded(request) or self._loader.submit(self._load, request))
            )
        return refused

    def blocked(self, slots: int) -> bool:
        """Return whether `slots` or more sequences have overtaken one of the loading requests.

        No further request may then be taken from Redis.
        """
        return any(loading.passed >= slots for loading in self.loading)

    def next_loaded(self, room: int, slots: int) -> LoadingRequest | None:
        """Remove and return the first request whose models are loaded and whose sequences fit into `room` free slots.

        A request for more than `slots` sequences never fits; it is returned nevertheless, and the caller refuses it. At
        most `slots` sequences overtake a request that does not fit, so that small requests cannot starve a large one.
        The model of the returned request stays loaded until `release` is called.
        """
        passed: list[LoadingRequest] = []
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
        """Wait until the models of any of the loading requests are loaded, but at most `WAIT_SECONDS`."""
        wait([loading.models for loading in self.loading], WAIT_SECONDS, FIRST_COMPLETED)

    def release(self, request_id: str) -> None:
        """Allow the eviction of the request's model. Call this when the request has started or will never start."""
        self._models.release(request_id)

    def drop(self, request_id: str) -> RefusedRequest | None:
        """Remove a request whose client has disconnected, and return it; return None if it is not in this queue."""
        if request_id in self.waiting:
            self.waiting.remove(request_id)
            return RefusedRequest(request_id, _cancelled_before_start())
        for loading in self.loading:
            if loading.request.id == request_id:
                self.loading.remove(loading)
                loading.models.cancel()
                loading.models.add_done_callback(lambda _: self._models.release(request_id))
                return RefusedRequest(request_id, _cancelled_before_start())
        return None

    def _models_if_loaded(self, request: GenerationRequest) -> Models | None:
        """Return the request's models as a finished future, or None if they are not loaded or cannot be read.

        If this returns None, the caller passes the request to the loader thread, which loads the models or reports why
        they cannot be read.
        """
        try:
            found = self._models.get_if_loaded(request.checkpoint, request.rl_checkpoint, request.id)
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


def _cancelled_before_start() -> UnavailableError:
    return UnavailableError("the generation was cancelled before it began", code="cancelled")
