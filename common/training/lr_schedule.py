"""Learning rate of a step: linear warm-up, then half a cosine, over whichever runs out first, steps or time."""

from __future__ import annotations

import math


def warmup_cosine_rate(
    step: int, total_steps: int, *, warmup_steps: int, peak: float, floor: float, time_fraction: float = 0.0
) -> float:
    """The rate of update `step` (0 is the first).

    Warm-up rises from peak / warmup_steps at step 0 to peak at step warmup_steps − 1; from step warmup_steps on it is
    floor + (peak − floor) · (1 + cos(π·q)) / 2, q being the share of the remaining training that is done (SGDR,
    Loshchilov and Hutter, 2017, one cycle). `time_fraction` is the share of a time limit that is used up (0 without
    a limit): progress is the larger of step / total_steps and time_fraction, so that a slow machine anneals too.
    """
    total = max(total_steps, 1)
    warmup = min(max(warmup_steps, 0), total)
    progress = min(max(step / total, time_fraction), 1.0)
    share = warmup / total
    if warmup and progress < share:
        return peak * min(1.0, progress / share + 1.0 / warmup)
    done = (progress - share) / (1.0 - share) if share < 1.0 else 0.0
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * done))
