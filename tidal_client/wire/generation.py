"""The answer to a request for text."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from .base import Reply


class GenerateReply(Reply):
    """The text and how it came about."""

    model_config = ConfigDict(extra="allow")

    text: str
    """Without the prompt."""
    tokens_generated: int
    elapsed_ms: float
    finish_reason: str
    """length, or stop at end-of-text or a stop string."""
    truncated: int = 0
    """Tokens of prompt and text that fell out of the window."""
    trajectory: list[dict[str, Any]] = Field(default_factory=list)
    """Per token: id, text, modulation, the four decoding parameters, log-probability, entropy (nats)."""
    effective: dict[str, Any] = Field(default_factory=dict)
    """The decoding parameters that were in force."""
