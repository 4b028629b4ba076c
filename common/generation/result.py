"""The result of a generation: the text, and for every token the parameters it was sampled with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from common.config import ModulationConfig
from common.generation.prompt_scores import PromptScore
from tidal_client.vocabulary import GatingMode


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model generated its end-of-text token, or the text reached a stop string."""
    LENGTH = "length"
    """The model generated `max_tokens` tokens."""
    CANCELLED = "cancelled"
    """The caller cancelled the generation, or the generation failed."""


@dataclass(slots=True)
class TokenStep:
    """One generated token.

    `log_prob` and `entropy` (nats) belong to the scored distribution, after penalty and temperature and before the
    filters; `sampling_entropy` belongs to the distribution sampled from. `modulation` is None in the gating mode
    `none`, and `top_k` is None if there was no top-k filter. `text` may be empty when the token ends inside a
    character, or when the text may be the beginning of a stop string. `start` is the number of complete characters
    before this token. `alternatives` are the most likely tokens of the scored distribution with their
    log-probabilities, in descending order.
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
    """The settings that a generation ran with.

    Temperature, top-k, top-p and repetition penalty are those of the request in mode `none` and those of the modulation
    in mode `fixed`. In the modes `random` and `learned` these four are None, because they change with each token (see
    `Generation.trajectory`); the map from the modulation to these values is `modulation_config`.
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
    """Whether the modulation was also an input of the model's gates."""
    backend: str
    """The code that computed the text: `native` or `torch`."""


@dataclass(slots=True)
class Generation:
    """One finished sequence. `token_ids` and `trajectory` leave out the prompt and a final end-of-text.

    `truncated` counts the tokens outside the context window: the beginning of a long prompt, and the tokens dropped
    each time the window slid. `prompt_scores` has an entry for each token of the prompt if that was requested.
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
