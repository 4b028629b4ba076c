"""Describes how a policy uses what it observes: how much m deviates, and how much of that the entropy explains.

A policy that always chooses almost the same m behaves like a constant, whatever its reward is. `describe_modulation`
states this in a sentence. `common.rl.ablation` records the modulations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import NEGLIGIBLE_MODULATION

ENTROPY_BINS = 10
"""Number of groups of tokens, equal in size and ordered by entropy, whose mean modulations are compared."""
_MIN_PER_BIN = 5
_ROUNDING = 1e-6
"""Deviations of m below this value are rounding errors, so that no share of them can be explained."""


def describe_modulation(modulation: NDArray[np.float64], entropy: NDArray[np.float64]) -> dict[str, Any]:
    """Return statistics of the modulations of n texts and a sentence about them.

    `modulation` and `entropy` (n, T) hold m and the entropy in nats of the model's next-token distribution, from which
    m was chosen; they are NaN after the end of a text. No text is empty. Keys of the result:

    mean             mean over all tokens
    std_within       root of the mean over texts of the population variance of m within a text
    std_between      population standard deviation of the texts' means
    entropy_share    share of the variance of m that the entropy explains (`explained_by_bins`), or None
    constant         whether both deviations together are below `NEGLIGIBLE_MODULATION`
    verdict          one sentence
    """
    found = np.isfinite(modulation)
    values = modulation[found]
    mean = float(values.mean())
    within = float(np.sqrt(np.nanvar(modulation, axis=1).mean()))
    between = float(np.nanmean(modulation, axis=1).std())
    share = explained_by_bins(values, entropy[found])
    constant = bool(np.hypot(within, between) < NEGLIGIBLE_MODULATION)
    deviations = f"by {within:.2g} within a text and by {between:.2g} between texts"
    if constant:
        verdict = f"The controller behaves like the constant m = {mean:.3g}: its m deviates {deviations}."
    else:
        explained = "" if share is None else f"; the entropy explains {100 * share:.0f} % of the variance"
        verdict = f"The controller varies m around {mean:.3g}, {deviations}{explained}."
    return {
        "mean": mean,
        "std_within": within,
        "std_between": between,
        "entropy_share": share,
        "constant": constant,
        "verdict": verdict,
    }


def explained_by_bins(values: NDArray[np.float64], regressor: NDArray[np.float64]) -> float | None:
    """Return the share of the variance of `values` (n,) that the means of `ENTROPY_BINS` groups explain.

    The groups have equal sizes and are ordered by `regressor` (n,). The share is the correlation ratio, adjusted for
    the number of groups as in the adjusted R², and at least 0. None if there are too few values or if they are equal.
    """
    n = len(values)
    if n < ENTROPY_BINS * _MIN_PER_BIN or float(values.std()) < _ROUNDING:
        return None
    groups = np.array_split(values[np.argsort(regressor, kind="stable")], ENTROPY_BINS)
    residual = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
    total = float(((values - values.mean()) ** 2).sum())
    return max(0.0, 1.0 - residual / (n - ENTROPY_BINS) * (n - 1) / total)
