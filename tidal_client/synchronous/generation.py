"""Methods of `Client` that generate text: `/api/generate` and `/v1`."""

# Generated from `tidal_client/asynchronous` by `python -m scripts.sync_client`; change it there.
from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from ..problems import check_openai_part, incomplete_stream
from ..requests import GENERATE_SECONDS, file_path, request_body, snake_case_body
from ..sse import StreamEvent
from ..wire.chat import ChatChunk, ChatCompletion
from ..wire.completion import Completion, Model, ModelList
from ..wire.generation import GenerateReply
from .connection import ApiConnection
from .streams import read_events


class GenerationCalls(ApiConnection):
    """Methods of `Client` that generate text."""

    def generate(
        self,
        checkpoint: str,
        prompt: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        gating_mode: str | None = None,
        modulation: float | None = None,
        rl_checkpoint: str | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> GenerateReply:
        """Generate a completion of `prompt`. A field that is None has the api's default."""
        body = request_body(
            checkpoint=checkpoint,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            gating_mode=gating_mode,
            modulation=modulation,
            rl_checkpoint=rl_checkpoint,
            stop=stop,
            seed=seed,
        )
        return self._post(GenerateReply, "/api/generate", body, timeout=GENERATE_SECONDS)

    def generate_stream(self, checkpoint: str, prompt: str, **fields: Any) -> Generator[StreamEvent]:
        """Generate a completion; yield an event `token` for each token, and then `done` with the complete reply.

        `fields` are those of `generate`. Raises the error that the engine reports. Closing the returned generator
        closes the connection, which stops the generation on the server.
        """
        body = request_body(checkpoint=checkpoint, prompt=prompt, stream=True, **fields)
        with closing(self._stream_post("/api/generate", body)) as events:
            yield from events

    def models(self) -> list[Model]:
        """Return all checkpoints from which text can be generated, newest experiment first."""
        return (self._get(ModelList, "/v1/models")).data

    def model(self, name: str) -> Model:
        """Return a model by its id, or by `<experiment id>/best`, `latest` or `final`. Raises NotFoundError."""
        return self._get(Model, f"/v1/models/{file_path(name)}")

    def complete(
        self, model: str, prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], **fields: Any
    ) -> Completion:
        """Return completions in OpenAI's format. `fields` are those of OpenAI's completions, and those that Tidal adds:
        `top_k`, `repetition_penalty`, `gating_mode`, `modulation`, `rl_checkpoint`."""
        body = snake_case_body(model=model, prompt=prompt, **fields)
        return self._post(Completion, "/v1/completions", body, timeout=GENERATE_SECONDS)

    def complete_stream(
        self, model: str, prompt: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], **fields: Any
    ) -> Generator[Completion]:
        """Yield the parts of completions in OpenAI's format as they are generated. `fields` are those of `complete`."""
        body = snake_case_body(model=model, prompt=prompt, stream=True, **fields)
        with closing(self._openai_parts("/v1/completions", body)) as parts:
            for part in parts:
                yield Completion.model_validate(part)

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **fields: Any) -> ChatCompletion:
        """Return messages in OpenAI's format that continue a conversation.

        A message has the keys `role` and `content`. `fields` are those of OpenAI's chat completions, and those that
        Tidal adds to completions.
        """
        body = snake_case_body(model=model, messages=list(messages), **fields)
        return self._post(ChatCompletion, "/v1/chat/completions", body, timeout=GENERATE_SECONDS)

    def chat_stream(self, model: str, messages: Sequence[Mapping[str, Any]], **fields: Any) -> Generator[ChatChunk]:
        """Yield the parts of messages that continue a conversation as they are generated. `fields` are those of
        `chat`."""
        body = snake_case_body(model=model, messages=list(messages), stream=True, **fields)
        with closing(self._openai_parts("/v1/chat/completions", body)) as parts:
            for part in parts:
                yield ChatChunk.model_validate(part)

    def _openai_parts(self, path: str, body: Any) -> Generator[Any]:
        """Yield the data of the events of a stream under `/v1`, up to `[DONE]`. Raises the error that one contains."""
        request = self._build_request("POST", path, json=body, timeout=GENERATE_SECONDS)
        with self._streamed(request, repeatable=False) as response:
            for event in read_events(response):
                if event.data == "[DONE]":
                    return
                check_openai_part(event.data)
                yield event.data
        raise incomplete_stream()
