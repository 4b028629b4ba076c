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
"""Longest wait for a model while no text is written: as long as other requests may have to wait for their turn."""

Models = Future[tuple[DecodingModel, GatingPolicy | None]]


@dataclass
class Loading:
    """A request whose model and policy are on their way, or there; `passed` are the texts that went before it."""

    request: GenerationRequest
    models: Models
    passed: int = 0


@dataclass(frozen=True)
class Refused:
    """A request that will not run; without an error nobody is to hear of it."""

    request_id: str
    error: TidalError | None


class Intake:
    """`waiting` were handed over, `loading` taken from Redis. `name` is that of the engine, for those who look for the
    one that took a request."""

    def __init__(self, redis: Redis, models: ModelCache) -> None:
        self.name = "engine"
        self._redis = redis
        self._models = models
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self.waiting: deque[str] = deque()
        self.loading: deque[Loading] = deque()

    def keep_loaded(self, in_use: Callable[[], Collection[DecodingModel]]) -> None:
        """Models that stay loaded, whatever else is asked for; asked from the loader's thread too."""
        self._models.in_use = in_use

    @property
    def loaded(self) -> int:
        """Requests that wait for nothing but room."""
        return sum(its.models.done() for its in self.loading)

    @property
    def ids(self) -> list[str]:
        """All of them."""
        return [*self.waiting, *(its.request.id for its in self.loading)]

    def close(self) -> None:
        """End the loader."""
        self._loader.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[Refused]:
        """Take up to `count` of the waiting requests; those that cannot run come back. RedisError."""
        ids = [self.waiting[number] for number in range(min(count, len(self.waiting)))]
        if not ids:
            return []
        # A transaction: the api takes a request for lost that is neither in Redis nor marked as begun.
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
        """Whether one has let so many texts pass that all others wait for it."""
        return any(its.passed >= slots for its in self.loading)

    def next_loaded(self, room: int, slots: int) -> Loading | None:
        """Take out the first whose models are there and whose texts fit into the room, or never would.

        One that does not fit lets `slots` texts pass, then no more, so that many small ones cannot keep it out.
        Its model stays loaded until `release`.
        """
        passed: list[Loading] = []
        for its in self.loading:
            if not its.models.done():
                continue
            if its.request.n <= room or its.request.n > slots:
                self.loading.remove(its)
                for other in passed:
                    other.passed += its.request.n
                return its
            if its.passed >= slots:
                return None
            passed.append(its)
        return None

    def wait(self) -> None:
        """Wait a moment for any model."""
        wait([its.models for its in self.loading], WAIT_SECONDS, FIRST_COMPLETED)

    def release(self, request_id: str) -> None:
        """The request runs, or never will: its model stays loaded on its behalf no longer."""
        self._models.release(request_id)

    def drop(self, request_id: str) -> Refused | None:
        """Forget a request whose client has gone; None when it is not here."""
        if request_id in self.waiting:
            self.waiting.remove(request_id)
            return Refused(request_id, _client_gone())
        for its in self.loading:
            if its.request.id == request_id:
                self.loading.remove(its)
                its.models.cancel()
                its.models.add_done_callback(lambda _: self._models.release(request_id))
                return Refused(request_id, _client_gone())
        return None

    def _held(self, request: GenerationRequest) -> Models | None:
        """Without the loader, which may be busy with another model; None where it is needed, also for the errors."""
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
