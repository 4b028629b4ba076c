"""Reply to a generation request."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from .base import Reply


class GenerateReply(Reply):
    """A completion, and the parameters with which it was sampled."""

    model_config = ConfigDict(extra="allow")

    text: str
    """The generated text without the prompt."""
    tokens_generated: int
    elapsed_ms: float
    finish_reason: str
    """`length` if the token limit was reached; `stop` if the completion ended at end-of-text or at a stop string."""
    truncated: int = 0
    """Number of tokens of prompt and completion that were dropped because the context window was full."""
    trajectory: list[dict[str, Any]] = Field(default_factory=list)
    """One entry per token: id, text, modulation, temperature, top-k, top-p, repetition penalty, log-probability, and
    entropies in nats."""
    effective: dict[str, Any] = Field(default_factory=dict)
    """The settings that were applied. With gating mode random or learned, the decoding parameters are null, because
    they change with each token."""
