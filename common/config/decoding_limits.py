"""The size of a request to a generator. Bounds of the sampling parameters are in `tidal_client.wire.sampling`."""

from __future__ import annotations

from typing import Final

MAX_PROMPT_TOKENS: Final = 65_536
"""Tokens of a prompt times its texts in one request to a generator, which holds each of these tokens."""
