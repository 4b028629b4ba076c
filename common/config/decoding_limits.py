"""Limits the size of a request to a generator. `tidal_client.wire.sampling` has the bounds of sampling parameters."""

from __future__ import annotations

from typing import Final

MAX_PROMPT_TOKENS: Final = 65_536
"""Most tokens of a prompt, multiplied by the number of texts, in one request: the generator keeps all in memory."""
