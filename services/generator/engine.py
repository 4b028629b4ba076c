"""Runs all requests together: `submit` takes ids; every `turn` admits what fits and samples one token for each text.

There is one running batch per loaded checkpoint, with `slots` texts in all. The failure of a request ends only that
request, with an `error` event; the failure of a batch ends all requests in it. Only a fault of the accelerator is
raised and ends the process, because it may have corrupted every model. Leaves out: the process around it
(`engine_child`), Redis (`intake`, `emitter`).
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
from services.generator.emitter import Batch, Emitter, End
from services.generator.intake import Intake, Loading
from services.generator.running_request import RunningRequest
from tidal_client.wire.generation_event import EVENT_ERROR, EVENT_PROMPT, EVENT_TOKEN

log = get_logger(__name__)

PREFILL_TEXTS = 16
"""Most texts that join in one turn. More would delay those that are running."""


class Engine:
    """Not thread-safe: call `submit` only between turns. `batches` maps each model to its running batch."""

    def __init__(self, intake: Intake, emitter: Emitter, *, slots: int, total_seconds: float) -> None:
        self._intake = intake
        self._emitter = emitter
        self._slots = slots
        self._total_seconds = total_seconds
        self.batches: dict[DecodingModel, BatchEngine] = {}
        self._running: dict[Continuation, RunningRequest] = {}
        self._batch = Batch()
        intake.name = emitter.name
        # The loader's thread calls this too; list() of a dict is atomic.
        intake.keep_loaded(lambda: list(self.batches))

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits."""
        return not (self._running or self._intake.waiting or self._intake.loading)

    def submit(self, request_id: str) -> None:
        """Queue a request until there is room. A request that was answered before is ignored."""
        self._intake.waiting.append(request_id)

    def turn(self) -> None:
        """Admit requests, sample one token for every text, send the events and decode.

        Raises torch.AcceleratorError after a fault of the device, when the clients have been sent an error.
        """
        try:
            self._admit()
            self._look_around()
            for model, batch in list(self.batches.items()):
                self._guarded(model, partial(self._draw, batch))
            self._emit()
            for model, batch in list(self.batches.items()):
                self._guarded(model, batch.advance)
                if not batch.active and len(self.batches) > 1:
                    del self.batches[model]  # the memory of a batch stays for the model that was used last
        finally:
            self._emit()

    def _admit(self) -> None:
        try:
            # Running and loading requests are not added: others may run until a model is loaded.
            room = self._slots - max(len(self._running) + self._intake.loaded, len(self._intake.loading))
            if room > 0 and not self._intake.blocked(self._slots):
                for refused in self._intake.take(min(room, PREFILL_TEXTS)):
                    self._refuse(refused.request_id, refused.error)
        except RedisError as error:
            # No request was taken; the api answers the clients when its own deadlines pass.
            lost = list(self._intake.waiting)
            self._intake.waiting.clear()
            log.warning("requests could not be taken from Redis", requests=len(lost), error=str(error))
            self._batch.finished += lost
        if self._intake.loading and not self._running:
            self._intake.wait()
        joining: dict[DecodingModel, list[Continuation]] = {}
        begun: list[str] = []
        texts = 0
        while texts < PREFILL_TEXTS:
            first = self._intake.next_loaded(self._slots - len(self._running), self._slots)
            if first is None:
                break
            begun.append(first.request.id)
            running = self._begin(first)
            if running is not None:
                joining.setdefault(running.model, []).extend(running.choices)
                texts += len(running.choices)
        for model, choices in joining.items():
            self._guarded(model, partial(self._join, model, choices))
        for request_id in begun:
            self._intake.release(request_id)  # from here on its batch keeps the model

    def _join(self, model: DecodingModel, choices: list[Continuation]) -> None:
        if model not in self.batches:
            self.batches[model] = new_engine(model, slots=self._slots)
        self.batches[model].join(choices)
        for running in dict.fromkeys(self._running[choice] for choice in choices):
            if running.request.echo:
                self._batch.events.append((running.request.id, EVENT_PROMPT, running.prompt_event()))

    def _begin(self, loading: Loading) -> RunningRequest | None:
        request = loading.request
        try:
            if request.n > self._slots:
                raise InvalidInputError(f"n {request.n} is above {self._slots}, the texts that are written at once")
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

    def _look_around(self) -> None:
        now = time.monotonic()
        by_id = {running.request.id: running for running in self._running.values()}
        for running in by_id.values():
            running.check_time(now)
        for request_id in self._emitter.take_gone():
            if request_id in by_id:
                by_id[request_id].cancel()
            elif (dropped := self._intake.drop(request_id)) is not None:
                self._refuse(dropped.request_id, dropped.error)
        if self._emitter.look_due():
            self._batch.watched = [*by_id, *self._intake.ids]

    def _guarded(self, model: DecodingModel, work: Callable[[], None]) -> None:
        """Call `work` for the batch of `model`; an error ends all requests in that batch."""
        try:
            work()
        except torch.AcceleratorError:
            for running in set(self._running.values()):
                self._refuse(running.request.id, _accelerator_failed())
            self._running.clear()
            raise
        except Exception as error:
            shown = _client_error(error, "")
            for running in set(self._running.values()):
                if running.model is model:
                    self._refuse(running.request.id, shown)
            self._running = {choice: one for choice, one in self._running.items() if one.model is not model}
            self.batches.pop(model, None)

    def _draw(self, batch: BatchEngine) -> None:
        self._finish(batch.draw(self._on_token))

    def _on_token(self, choice: Continuation, step: TokenStep) -> None:
        running = self._running[choice]
        event = running.token_event(choice, step)
        if event is not None:
            self._batch.events.append((running.request.id, EVENT_TOKEN, event))

    def _finish(self, choices: list[Continuation]) -> None:
        for choice in choices:
            running = self._running.pop(choice)
            if not any(other in self._running for other in running.choices):
                self._batch.ends.append(End(running.request.id, running.last_event, large=running.large))
                log.info("request answered", request_id=running.request.id, seconds=round(running.seconds, 3))

    def _refuse(self, request_id: str, error: TidalError | None) -> None:
        if error is not None:
            log.info("request refused", request_id=request_id, code=error.code, error=error.message)
            self._batch.events.append((request_id, EVENT_ERROR, error_data(error)))
        self._batch.finished.append(request_id)

    def _emit(self) -> None:
        batch = self._batch
        if batch.events or batch.ends or batch.finished or batch.watched:
            self._batch = Batch()
            self._emitter.send(batch)


def _accelerator_failed() -> TidalError:
    return TidalError("the accelerator failed; the generator restarts", code="accelerator_failed")


def _client_error(error: Exception, request_id: str) -> TidalError:
    """Return the error that clients get; errors of the server are logged and hidden behind a general message."""
    if isinstance(error, TidalError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        log.warning("out of accelerator memory", request_id=request_id)
        return UnavailableError("the generator is out of accelerator memory; try again", code="out_of_memory")
    log.error("generation failed", request_id=request_id, exc_info=error)
    return TidalError("generation failed inside the server; its log has the details", code="internal")
