"""Limits the size of a generate request. The bounds of sampling parameters are in `tidal_client.wire.sampling`."""

from __future__ import annotations

from typing import Final

MAX_PROMPT_TOKENS: Final = 65_536
"""Largest product of the number of prompt tokens and the number of completions in one request. The limit is needed
because the generator keeps the prompt tokens of all completions in memory."""
