"""Limits the size of a generate request. The bounds of sampling parameters are in `tidal_client.wire.sampling`."""

from __future__ import annotations

from typing import Final

MAX_PROMPT_TOKENS: Final = 65_536
"""Largest product of prompt tokens and number of completions in one request, because the generator keeps the prompt
tokens of all completions in memory."""
