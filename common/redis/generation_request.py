"""The protocol between api and generator for one generation, through Redis.

    api      SET tidal:generate:request:<id> (JSON of `GenerationRequest`, expires when it is too late to begin),
             then the Celery task `tidal.generate.handover` with the id and the number of completions
    engine   XADD tidal:stream:generate:<reader> (`common.redis.generation_events`): the events of
             `tidal_client.wire.generation_event`
    api      SET tidal:generate:cancelled:<id> when its client has disconnected or a deadline has passed

When the engine begins a request, it deletes the request's key and sets a mark that holds the engine's name. If the key
is missing and there is a mark, the request was begun before, so the message is ignored. If both are missing, the
request has expired, and the engine sends an `error` with 503. A cancelled generation ends with the `error` `cancelled`,
in case a client is still connected. `common.redis.presence` shows which engines and api processes have died. If an
engine has died, the api sends an error to the clients whose requests that engine had begun. If an api process has died,
the engines end the generations of that process. If Redis has lost a request, the api answers its client with an error
within seconds (`services.api.generations`). This module imports neither torch nor the database.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from tidal_client.wire.sampling import SamplingParameters


class GenerationRequest(SamplingParameters):
    """A request that the api has validated. Its fields are named as in `common.generation.generate`."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    id: str
    checkpoint: str
    """Reference into the artifact store, `<experiment id>/<file>`, with aliases resolved."""
    prompt: str | list[int]
    """The prompt as text or as token ids."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = Field(default_factory=dict)
    """{token id: number that is added to its logit}."""
    seed: int | None = None
    rl_checkpoint: str | None = None
    """Reference to the controller in the artifact store; only used with the gating mode "learned"."""
    n: int = Field(1, ge=1)
    """Number of completions of the prompt; they use the seeds `seed`, `seed` + 1, …"""
    top_log_probs: int = 0
    """Number of the most likely tokens that are reported with each token."""
    log_probs: bool = False
    """Whether to report the data for `logprobs` of the OpenAI API with each token; with `echo`, also with the tokens of
    the prompt."""
    echo: bool = False
    """Whether to report the prompt in a separate event."""
    trajectory: bool = True
    """Whether to report all tokens in the last event."""
    stream: bool = False
    """If true, a `token` event is sent for each token; if false, only for the first token of each completion."""
