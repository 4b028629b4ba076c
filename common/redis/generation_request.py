"""What the api and the generator say to each other about one generation, through Redis. No torch, no database.

    api      SET tidal:generate:request:<id> (JSON of `GenerationRequest`, expires when it is too late to begin),
             then the Celery task `tidal.generate.handover` with the id, and n as `texts`
    engine   XADD tidal:stream:generate:<reader> (`common.redis.generation_events`): the events of
             `tidal_client.wire.generation_event`
    api      SET tidal:generate:cancelled:<id> when its client has gone or a deadline has passed

The engine takes the request away when it begins, and marks it as begun with its name. One that it does not find has
expired (`error` with 503) or, where it is marked, was begun before (left alone). A generation that is cancelled ends
with the `error` `cancelled`, in case somebody still listens. Both sides learn from `common.redis.presence` that the
other has died: the api answers the clients of an engine that is gone with an error, an engine ends the texts of an api
process that is gone. A request that Redis has lost is answered with an error within seconds
(`services.api.generations`).
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from tidal_client.wire.sampling import SamplingParameters


class GenerationRequest(SamplingParameters):
    """One request, checked by the api. Names are those of `common.generation.generate`."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    id: str
    checkpoint: str
    """Reference into the artifact store, `<experiment id>/<file>`, aliases resolved."""
    prompt: str | list[int]
    """Text, or token ids."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = Field(default_factory=dict)
    """Token id to what is added to its logit."""
    seed: int | None = None
    rl_checkpoint: str | None = None
    """The controller, for mode learned."""
    n: int = Field(1, ge=1)
    """Choices: texts that go on from the prompt, with seeds seed, seed + 1, …"""
    top_log_probs: int = 0
    """The likeliest tokens told with each token."""
    log_probs: bool = False
    """Tell what OpenAI's `logprobs` needs of each token, with `echo` also of the prompt's."""
    echo: bool = False
    """Tell the prompt."""
    trajectory: bool = True
    """Tell all tokens at the end."""
    stream: bool = False
    """Whether the client reads token by token; without it only the first `token` event comes, at the start."""
