"""Checks before a write and after a read that weights and optimiser state contain neither NaN nor infinity.

Checks of the loss and of the gradient norm at each update are in `common.training.pretrain` and `common.rl.ppo`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from common.errors import CheckpointError, DivergedError


def first_non_finite(values: Mapping[str, Any]) -> str | None:
    """Return the name of the first tensor or number in `values`, at any depth, that is not finite, or None."""
    return next((name for name, value in _leaves("", values) if not _is_finite(value)), None)


def require_finite_state(weights: Mapping[str, Tensor], optimizer: Mapping[str, Any] | None = None) -> None:
    """Raise DivergedError if a tensor or number in weights or optimiser state is not finite; the error names it."""
    for what, values in (("the weights", weights), ("the state of the optimiser", optimizer or {})):
        name = first_non_finite(values)
        if name is not None:
            raise DivergedError(f"{what} hold NaN or infinity ({name})", quantity=what)


def require_usable(weights: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError if weights that were read from the file or folder `where` are not finite."""
    name = first_non_finite(weights)
    if name is not None:
        raise CheckpointError(
            f"{where}: its weights hold NaN or infinity ({name}), so the training that wrote it had diverged; "
            "use an earlier checkpoint"
        )


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), item)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            yield from _leaves(f"{prefix}.{index}", item)
    else:
        yield prefix, value


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex()) or bool(value.isfinite().all())
    return not isinstance(value, float) or math.isfinite(value)
