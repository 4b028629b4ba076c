"""The queue of requests between the hand-over and their first token: takes them from Redis and loads their models.

A separate thread loads models, so that a new checkpoint delays neither running sequences nor requests for models that
are loaded. A request is taken from Redis only when a slot may be free for it; until then, it can expire there. Leaves
out: decoding (`engine`).
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
"""Longest wait for a model while no sequence runs. It may delay new requests by as much."""

Models = Future[tuple[DecodingModel, GatingPolicy | None]]


@dataclass
class LoadingRequest:
    """A request whose model and policy are loading or loaded. `passed` counts the sequences that have overtaken it."""

    request: GenerationRequest
    models: Models
    passed: int = 0


@dataclass(frozen=True)
class RefusedRequest:
    """A request that will not run. `error` is sent to its client; if it is None, nothing is sent."""

    request_id: str
    error: TidalError | None


class AdmissionQueue:
    """The requests that do not run yet. `waiting` holds ids, `loading` the requests that were taken from Redis.

    `name` is the name of the engine; it is stored with each request, so that the api knows which engine took it.
    """

    def __init__(self, redis: Redis, models: ModelCache) -> None:
        self.name = "engine"
        self._redis = redis
        self._models = models
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.waiting: deque[str] = deque()
        self.loading: deque[LoadingRequest] = deque()

    def keep_loaded(self, in_use: Callable[[], Collection[DecodingModel]]) -> None:
        """Set the function that returns the models to keep loaded. The loader thread calls it too."""
        self._models.in_use = in_use

    @property
    def loaded(self) -> int:
        """Number of requests whose models are loaded and that wait only for a slot."""
        return sum(loading.models.done() for loading in self.loading)

    @property
    def ids(self) -> list[str]:
        """Ids of all requests, waiting and loading."""
        return [*self.waiting, *(loading.request.id for loading in self.loading)]

    def close(self) -> None:
        """End the loader thread."""
        self._loader.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[RefusedRequest]:
        """Take up to `count` waiting requests from Redis, and return those that cannot run. Raises RedisError."""
        ids = [self.waiting[number] for number in range(min(count, len(self.waiting)))]
        if not ids:
            return []
        # One transaction: the api treats a request as lost if it is neither in Redis nor marked as started.
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
        """Return whether a request was overtaken by so many sequences that all other requests must wait for it."""
        return any(loading.passed >= slots for loading in self.loading)

    def next_loaded(self, room: int, slots: int) -> LoadingRequest | None:
        """Remove and return the first loaded request whose sequences fit into `room` free slots.

        A request for more than `slots` sequences is returned too, because it never fits; the caller refuses it. A
        request that does not fit is overtaken by at most `slots` sequences, so that small requests cannot starve it.
        The model of the returned request stays loaded until `release`.
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
        """Wait up to `WAIT_SECONDS` until any model is loaded."""
        wait([loading.models for loading in self.loading], WAIT_SECONDS, FIRST_COMPLETED)

    def release(self, request_id: str) -> None:
        """Stop keeping the model of this request loaded, because the request runs now or never will."""
        self._models.release(request_id)

    def drop(self, request_id: str) -> RefusedRequest | None:
        """Remove a request whose client has disconnected; return None if it is not in this queue."""
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
        """Return the models if they are loaded. Otherwise return None: the loader loads them or reports the error."""
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
