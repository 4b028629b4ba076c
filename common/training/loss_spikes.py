"""Finds spikes of the training loss: steps whose loss is far above the losses of the steps before.

The running mean m and variance v are exponentially weighted: with d = loss − m and a weight w, m becomes m + w·d and v
becomes (1 − w)·(v + w·d²) (Finch, "Incremental calculation of weighted mean and variance", 2009, equations 124 and
143). The weight of the n-th loss is 1/n, but at least 2/(WINDOW + 1), so that m and v are the plain mean and variance
at first and later those of about the newest WINDOW steps.

After WARMUP_STEPS steps, a loss above m + 6·√v begins a spike, where m and v do not yet contain this loss. The spike
ends at the first loss of at most m + 3·√v. Until then, each loss enters m and v as m + 3·√v, so that a short spike
changes them little, and after a lasting increase they still reach the new level.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

WINDOW = 50
"""Number of newest steps that mean and variance cover approximately: the span of the exponential average. With a longer
one, the usual decrease of the loss at the beginning would count as a large deviation and hide spikes."""
WARMUP_STEPS = 50
"""Number of first losses that cannot begin a spike, because mean and variance are not known well enough."""
SPIKE_DEVIATIONS = 6.0
"""Number of running standard deviations above the running mean at which a spike begins."""
END_DEVIATIONS = 3.0
"""Number of running standard deviations above the running mean at which a spike ends. It is lower than
SPIKE_DEVIATIONS, so that a loss near the limit does not count as many spikes."""
SMALLEST_DEVIATION = 1e-3
"""Smallest standard deviation, as a share of the mean. Without it, rounding errors of a constant loss could
begin spikes."""


@dataclass(frozen=True)
class LossSpike:
    """The first step of a spike."""

    loss: float
    mean: float
    """Running mean of the losses before, in nats."""
    deviations: float
    """Distance of the loss from the mean, in running standard deviations."""


@dataclass
class LossStatistics:
    """Running mean and variance of the training loss. A checkpoint contains all fields."""

    count: int = 0
    """Number of losses so far."""
    mean: float = 0.0
    variance: float = 0.0
    in_spike: bool = False
    """Whether the newest loss belongs to a spike."""

    def add(self, loss: float) -> LossSpike | None:
        """Add the finite loss of a step. Return a spike if one begins at this step, otherwise None."""
        deviation = max(math.sqrt(self.variance), SMALLEST_DEVIATION * abs(self.mean))
        spike = None
        if self.count >= WARMUP_STEPS:
            excess = loss - self.mean
            if self.in_spike:
                self.in_spike = excess > END_DEVIATIONS * deviation
            elif excess > SPIKE_DEVIATIONS * deviation > 0:
                self.in_spike = True
                spike = LossSpike(loss, self.mean, excess / deviation)
            if self.in_spike:
                loss = self.mean + END_DEVIATIONS * deviation
        self.count += 1
        weight = max(1 / self.count, 2 / (WINDOW + 1))
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference**2)
        return spike

    def state_dict(self) -> dict[str, Any]:
        """Return all fields, for a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore a result of `state_dict`. None, from a checkpoint of an older version, starts a new warm-up."""
        for field in fields(self):
            setattr(self, field.name, field.default if state is None else state[field.name])
