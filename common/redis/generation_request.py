"""The protocol between api and generator for one generation, through Redis. Imports neither torch nor the database.

    api      SET tidal:generate:request:<id> (JSON of `GenerationRequest`, expires when it is too late to begin),
             then the Celery task `tidal.generate.handover` with the id, and n as `texts`
    engine   XADD tidal:stream:generate:<reader> (`common.redis.generation_events`): the events of
             `tidal_client.wire.generation_event`
    api      SET tidal:generate:cancelled:<id> when its client has disconnected or a deadline has passed

The engine deletes the request when it begins, and sets a mark with its own name. If the request is missing, it has
expired (`error` with 503), or, with a mark, was begun before and is ignored. A cancelled generation ends with the
`error` `cancelled`, in case a client is still connected. Both sides learn from `common.redis.presence` that the other
has died: the api then answers the clients of that engine with an error, an engine ends the generations of that api
process. If Redis has lost a request, the api answers it with an error within seconds (`services.api.generations`).
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
    """Token id → number that is added to its logit."""
    seed: int | None = None
    rl_checkpoint: str | None = None
    """Reference to the controller, for gating mode learned."""
    n: int = Field(1, ge=1)
    """Number of completions of the prompt; they use the seeds `seed`, `seed` + 1, …"""
    top_log_probs: int = 0
    """Number of the most likely tokens that are reported with each token."""
    log_probs: bool = False
    """Report the data for OpenAI's `logprobs` with each token; with `echo`, also for the tokens of the prompt."""
    echo: bool = False
    """Report the prompt in a separate event."""
    trajectory: bool = True
    """Report all tokens in the last event."""
    stream: bool = False
    """Send a `token` event for each token; if false, only for the first token of each completion."""
