"""A running request: its choices (one continuation of the prompt each), and the events that its client receives.

Decoding is in `common.generation`; sending the events is in `services.generator.emitter`.
"""

from __future__ import annotations

import time

from common.config.decoding_limits import MAX_PROMPT_TOKENS
from common.controller import GatingPolicy, require_same_vocabulary
from common.errors import InvalidInputError, TidalError, UnavailableError
from common.generation import Continuation, DecodingModel, FinishReason, GenerationSettings, TokenStep
from common.generation.text import EncodedPrompt, encode_prompt
from common.redis.generation_events import error_data
from common.redis.generation_request import GenerationRequest
from services.generator.wire import wire_prompt, wire_reply, wire_token
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR, DoneEvent, ErrorEvent, PromptEvent, TokenEvent

_SEED_RANGE = 2**63
LARGE_TOKENS = 256
"""Number of trajectory tokens above which building the last event takes several milliseconds."""


class RunningRequest:
    """A running request: `request.n` continuations of one prompt.

    Raises InvalidInputError if the prompt or a setting is invalid, or if the policy was trained with another
    vocabulary than the model's.
    """

    def __init__(
        self, request: GenerationRequest, model: DecodingModel, policy: GatingPolicy | None, *, total_seconds: float
    ) -> None:
        self.request = request
        self.model = model
        self._tokenizer = model.vocabulary.encoding
        if policy is not None:
            require_same_vocabulary(policy, model.vocabulary)
        self._total_seconds = total_seconds
        self._started = time.monotonic()
        settings = GenerationSettings(
            **request.sampling(),
            policy=policy,
            top_log_probs=request.top_log_probs,
            score_prompt=request.echo and request.log_probs,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=tuple(request.logit_bias.items()),
        )
        prompt = _encode_request_prompt(request, model)
        # All choices have the same prompt, so only the first choice computes the scores of the prompt.
        without_scores = settings.model_copy(update={"score_prompt": False})
        self.choices = [
            Continuation(
                prompt,
                without_scores if number else settings,
                vocab_size=model.config.vocab_size,
                gates_trained=model.gates_trained,
                backend=model.effective_backend,
                tokenizer=self._tokenizer,
                seed=None if request.seed is None else (request.seed + number) % _SEED_RANGE,
            )
            for number in range(request.n)
        ]
        self._token_sent = self._cancelled = False

    @property
    def seconds(self) -> float:
        """Seconds since the request was started."""
        return time.monotonic() - self._started

    def prompt_event(self) -> PromptEvent:
        """Return the event `prompt`, which contains the prompt as the model received it."""
        return wire_prompt(self.choices[0].result, self._tokenizer)

    def token_event(self, choice: Continuation, step: TokenStep) -> TokenEvent | None:
        """Return the event for a token, or None if the client should not receive one.

        A client that does not stream receives only the first token, which shows the api that the request has started.
        """
        if self._token_sent and not self.request.stream:
            return None
        self._token_sent = True
        index = len(choice.result.token_ids) - 1
        token = wire_token(index, step, self._tokenizer, log_probs=self.request.log_probs)
        if self.request.n > 1:
            token["choice"] = next(number for number, other in enumerate(self.choices) if other is choice)
        return token

    @property
    def large(self) -> bool:
        """Whether building the last event takes so long that a separate thread should do it."""
        return (
            self.request.trajectory
            and not self._cancelled
            and sum(len(choice.result.trajectory) for choice in self.choices) > LARGE_TOKENS
        )

    def last_event(self) -> tuple[str, DoneEvent | ErrorEvent]:
        """Return name and data of the last event: the complete reply, or the first error of a choice.

        Any thread may call this once all choices have ended.
        """
        if self._cancelled:
            tokens_generated = sum(len(choice.result.token_ids) for choice in self.choices)
            cancelled = UnavailableError(
                f"the generation was cancelled after {tokens_generated} tokens", code="cancelled"
            )
            return EVENT_ERROR, {
                **error_data(cancelled),
                "tokensGenerated": tokens_generated,
                "seed": self.request.seed,
            }
        error = next((choice.error for choice in self.choices if choice.error is not None), None)
        if error is not None:
            return EVENT_ERROR, error_data(error)
        log_probs, trajectory = self.request.log_probs, self.request.trajectory
        first, *others = [
            wire_reply(choice.result, self._tokenizer, log_probs=log_probs, trajectory=trajectory)
            for choice in self.choices
        ]
        if not others:
            return EVENT_DONE, first
        done = first.copy()
        done.pop("trajectory", None)
        done["choices"] = [first, *others]
        return EVENT_DONE, done

    def check_time(self, now: float) -> None:
        """End the request with an error (503) if its time limit has passed."""
        if now - self._started > self._total_seconds:
            self.fail(
                UnavailableError(
                    f"the generation took longer than {self._total_seconds:g} s; request fewer tokens", code="timeout"
                )
            )

    def cancel(self) -> None:
        """End the request because its client has disconnected. Its last event is an error."""
        self._cancelled = True
        for choice in self.choices:
            choice.end(FinishReason.CANCELLED)

    def fail(self, error: TidalError) -> None:
        """End all choices with `error`."""
        for choice in self.choices:
            choice.fail(error)


def _encode_request_prompt(request: GenerationRequest, model: DecodingModel) -> EncodedPrompt:
    ids = encode_prompt(model.vocabulary.encoding, request.prompt, model.config.vocab_size)
    if len(ids) * request.n > MAX_PROMPT_TOKENS:
        several = request.n > 1
        raise InvalidInputError(
            f"the prompt has {len(ids):,} tokens"
            + (f", which is {len(ids) * request.n:,} for {request.n} choices" if several else "")
            + f"; the limit is {MAX_PROMPT_TOKENS:,}: shorten the prompt"
            + (" or request fewer choices" if several else "")
        )
    return EncodedPrompt(ids)
