"""The gating mode of a request by its name.

Leaves out: picking the modulation for the rows of a batch (`rows`), and what it does to the logits
(`common.controller.modulation`, `sampling`).
"""

from __future__ import annotations

from common.errors import InvalidInputError
from tidal_client.vocabulary import GatingMode


def parse_mode(mode: GatingMode | str) -> GatingMode:
    """The gating mode of this name. Raises InvalidInputError for an unknown one."""
    try:
        return GatingMode(mode)
    except ValueError:
        raise InvalidInputError(f"gating mode {str(mode)!r} is not one of {', '.join(GatingMode)}") from None
