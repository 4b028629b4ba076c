"""Who picks the modulation of each token: nobody, a constant, chance, or a policy.

The modes of a request. `random` and `fixed(m)` are also the baselines of the ablation; `neutral` is `fixed(0.5)`.
Leaves out: picking it for the rows of a batch (`rows`), and what it does to the logits (`common.controller.modulation`,
`sampling`).
"""

from __future__ import annotations

from enum import StrEnum

from common.errors import InvalidInputError

NEUTRAL_MODULATION = 0.5


class GatingMode(StrEnum):
    """The modes of a request."""

    NONE = "none"
    FIXED = "fixed"
    RANDOM = "random"
    LEARNED = "learned"


def parse_mode(mode: GatingMode | str) -> GatingMode:
    """The gating mode of this name. Raises InvalidInputError for an unknown one."""
    try:
        return GatingMode(mode)
    except ValueError:
        raise InvalidInputError(f"gating mode {str(mode)!r} is not one of {', '.join(GatingMode)}") from None
