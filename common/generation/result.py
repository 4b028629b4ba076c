"""What a generation gives back: the text, and for every token what it was sampled with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from common.config import ModulationConfig
from common.generation.prompt_scores import PromptScore
from tidal_client.vocabulary import GatingMode


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model said end-of-text, or the text reached a stop string."""
    LENGTH = "length"
    """max_tokens were generated."""
    CANCELLED = "cancelled"
    """The caller wished no more."""


@dataclass(slots=True)
class TokenStep:
    """One generated token.

    `log_prob` and `entropy` (nats) are of the scored distribution, after penalty and temperature and before the
    filters; `sampling_entropy` is of the distribution sampled from. `modulation` is None in mode `none`, `top_k` None
    where there was no such filter. `text` may be empty when the token ends inside a character or what may be a stop
    string; `start` counts the characters of the text before the one that the token begins in. `alternatives` are the
    likeliest tokens of the scored distribution with their log-probabilities, falling.
    """

    token_id: int
    text: str
    modulation: float | None
    temperature: float
    top_k: int | None
    top_p: float
    repetition_penalty: float
    log_prob: float
    entropy: float
    sampling_entropy: float
    start: int = 0
    alternatives: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """What the generation really ran with.

    Mode `none`: the request's four parameters. Mode `fixed`: those of its modulation. `random` and `learned`: None,
    since they change per token (see the trajectory); their bases are in `modulation_config`.
    """

    gating_mode: GatingMode
    max_tokens: int
    seed: int
    modulation: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    presence_penalty: float
    frequency_penalty: float
    modulation_config: ModulationConfig | None
    gates_fed: bool
    """Whether the model's gates saw the modulation."""


@dataclass(slots=True)
class Generation:
    """One finished sequence. `token_ids` and `trajectory` leave out the prompt and a final end-of-text.

    `truncated` counts the tokens that left the model's window: of a long prompt, and whenever the window slid.
    `prompt_scores` has an entry for each token of the prompt where that was asked for.
    """

    prompt_token_ids: list[int]
    effective: EffectiveSettings
    prompt_scores: list[PromptScore] | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    trajectory: list[TokenStep] = field(default_factory=list)
    finish_reason: FinishReason = FinishReason.LENGTH
    truncated: int = 0
    elapsed_seconds: float = 0.0
