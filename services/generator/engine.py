"""Decodes all requests together: `submit` queues a request, and each `step` samples one token for every sequence.

There is one running batch per loaded checkpoint. All batches share `slots` slots; each sequence occupies one slot. A
failure of a request ends only that request, with an `error` event. A failure of a batch ends all requests in the batch.
Only a fault of the accelerator is raised and ends the process, because it may have corrupted every model. The process
is in `services.generator.engine_child`; the access to Redis is in `admission` and `emitter`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from redis.exceptions import RedisError

from common.errors import InvalidInputError, TidalError, UnavailableError
from common.generation import BatchEngine, Continuation, DecodingModel, TokenStep, new_engine
from common.logging import get_logger
from common.redis.generation_events import error_data
from services.generator.admission import AdmissionQueue, LoadingRequest
from services.generator.emitter import Emitter, EventBatch, FinalEvent
from services.generator.running_request import RunningRequest
from tidal_client.wire.generation_event import EVENT_ERROR, EVENT_PROMPT, EVENT_TOKEN

log = get_logger(__name__)

MAX_PREFILL_SEQUENCES = 16
"""Once this number of sequences has joined in one step, further requests wait for the next step.

A larger number would delay the running sequences.
"""


class Engine:
    """Decodes all requests of the generator in `slots` slots.

    A request that takes longer than `total_seconds` ends with an error. `batches` maps each model to its running batch.
    The class is not thread-safe: call `submit` only between two calls of `step`.
    """

    def __init__(self, admission: AdmissionQueue, emitter: Emitter, *, slots: int, total_seconds: float) -> None:
        self._admission = admission
        self._emitter = emitter
        self._slots = slots
        self._total_seconds = total_seconds
        self.batches: dict[DecodingModel, BatchEngine] = {}
        self._running: dict[Continuation, RunningRequest] = {}
        self._batch = EventBatch()
        admission.name = emitter.name
        # The loader thread also calls this function. That is safe, because list() of a dict is atomic.
        admission.keep_loaded(lambda: list(self.batches))

    @property
    def idle(self) -> bool:
        """Whether no request is running, loading or waiting."""
        return not (self._running or self._admission.waiting or self._admission.loading)

    def submit(self, request_id: str) -> None:
        """Queue a request. If the api has already answered its client, the request is dropped without an event."""
        self._admission.waiting.append(request_id)

    def step(self) -> None:
        """Admit requests, sample one token for every sequence, send the events, and compute the next logits.

        Raises torch.AcceleratorError after a fault of the accelerator. Error events for all clients are queued before
        that.
        """
        try:
            self._admit()
            self._check_deadlines_and_clients()
            for model, batch in list(self.batches.items()):
                self._run_guarded(model, partial(self._sample, batch))
            self._emit()
            for model, batch in list(self.batches.items()):
                self._run_guarded(model, batch.advance)
                if not batch.active and len(self.batches) > 1:
                    del self.batches[model]  # The last batch stays, because the next request can use its memory.
        finally:
            self._emit()

    def _admit(self) -> None:
        try:
            # A request whose models are loading reserves no slot; other requests may use the slots in the meantime.
            room = self._slots - max(len(self._running) + self._admission.loaded, len(self._admission.loading))
            if room > 0 and not self._admission.blocked(self._slots):
                for refused in self._admission.take(min(room, MAX_PREFILL_SEQUENCES)):
                    self._refuse(refused.request_id, refused.error)
        except RedisError as error:
            # None of the requests was taken. They are dropped here, and the api sends an error to each
            # client that has waited too long.
            untaken = list(self._admission.waiting)
            self._admission.waiting.clear()
            log.warning("requests could not be taken from Redis", requests=len(untaken), error=str(error))
            self._batch.finished += untaken
        if self._admission.loading and not self._running:
            self._admission.wait()
        joining: dict[DecodingModel, list[Continuation]] = {}
        started: list[str] = []
        sequences = 0
        while sequences < MAX_PREFILL_SEQUENCES:
            first = self._admission.next_loaded(self._slots - len(self._running), self._slots)
            if first is None:
                break
            started.append(first.request.id)
            running = self._start(first)
            if running is not None:
                joining.setdefault(running.model, []).extend(running.choices)
                sequences += len(running.choices)
        for model, choices in joining.items():
            self._run_guarded(model, partial(self._join, model, choices))
        for request_id in started:
            self._admission.release(request_id)  # From here on, the batch keeps the model loaded.

    def _join(self, model: DecodingModel, choices: list[Continuation]) -> None:
        if model not in self.batches:
            self.batches[model] = new_engine(model, slots=self._slots)
        self.batches[model].join(choices)
        for running in dict.fromkeys(self._running[choice] for choice in choices):
            if running.request.echo:
                self._batch.events.append((running.request.id, EVENT_PROMPT, running.prompt_event()))

    def _start(self, loading: LoadingRequest) -> RunningRequest | None:
        request = loading.request
        try:
            if request.n > self._slots:
                raise InvalidInputError(
                    f"n is {request.n}, but the generator decodes at most {self._slots} choices at once; request fewer"
                )
            model, policy = loading.models.result()
            running = RunningRequest(request, model, policy, total_seconds=self._total_seconds)
        except torch.AcceleratorError:
            self._refuse(request.id, _accelerator_failed())
            raise
        except Exception as error:
            self._refuse(request.id, _client_error(error, request.id))
            return None
        self._running.update(dict.fromkeys(running.choices, running))
        return running

    def _check_deadlines_and_clients(self) -> None:
        now = time.monotonic()
        by_id = {running.request.id: running for running in self._running.values()}
        for running in by_id.values():
            running.check_time(now)
        for request_id in self._emitter.take_disconnected():
            if request_id in by_id:
                by_id[request_id].cancel()
            elif (dropped := self._admission.drop(request_id)) is not None:
                self._refuse(dropped.request_id, dropped.error)
        if self._emitter.client_check_due():
            self._batch.watched = [*by_id, *self._admission.ids]

    def _run_guarded(self, model: DecodingModel, work: Callable[[], None]) -> None:
        """Call `work` for the batch of `model`; if it raises an error, end all requests in that batch."""
        try:
            work()
        except torch.AcceleratorError:
            for running in set(self._running.values()):
                self._refuse(running.request.id, _accelerator_failed())
            self._running.clear()
            raise
        except Exception as error:
            client_error = _client_error(error, "")
            for running in set(self._running.values()):
                if running.model is model:
                    self._refuse(running.request.id, client_error)
            self._running = {choice: running for choice, running in self._running.items() if running.model is not model}
            self.batches.pop(model, None)

    def _sample(self, batch: BatchEngine) -> None:
        self._finish(batch.sample(self._on_token))

    def _on_token(self, choice: Continuation, step: TokenStep) -> None:
        running = self._running[choice]
        event = running.token_event(choice, step)
        if event is not None:
            self._batch.events.append((running.request.id, EVENT_TOKEN, event))

    def _finish(self, choices: list[Continuation]) -> None:
        for choice in choices:
            running = self._running.pop(choice)
            if not any(other in self._running for other in running.choices):
                self._batch.ends.append(FinalEvent(running.request.id, running.last_event, large=running.large))
                log.info("request answered", request_id=running.request.id, seconds=round(running.seconds, 3))

    def _refuse(self, request_id: str, error: TidalError | None) -> None:
        if error is not None:
            log.info("request refused", request_id=request_id, code=error.code, error=error.message)
            self._batch.events.append((request_id, EVENT_ERROR, error_data(error)))
        self._batch.finished.append(request_id)

    def _emit(self) -> None:
        batch = self._batch
        if batch.events or batch.ends or batch.finished or batch.watched:
            self._batch = EventBatch()
            self._emitter.send(batch)


def _accelerator_failed() -> TidalError:
    return TidalError("the accelerator failed; the generator restarts", code="accelerator_failed")


def _client_error(error: Exception, request_id: str) -> TidalError:
    """Return the error to send to the client. Internal errors are logged, and the client gets a general message."""
    if isinstance(error, TidalError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        log.warning("the accelerator is out of memory", request_id=request_id)
        return UnavailableError("the generator is out of accelerator memory; try again", code="out_of_memory")
    log.error("the generation failed", request_id=request_id, exc_info=error)
    return TidalError("generation failed inside the server; its log has the details", code="internal")
