"""The learning rate of pretraining: linear warm-up, then cosine decay over the used share of steps or time."""

from __future__ import annotations

import math


def warmup_cosine_rate(
    step: int, total_steps: int, *, warmup_steps: int, peak: float, floor: float, time_fraction: float = 0.0
) -> float:
    """Return the learning rate of update `step` (the first is 0).

    The warm-up rises from peak / warmup_steps at step 0 to peak at step warmup_steps − 1; after it the rate is floor +
    (peak − floor) · (1 + cos(π·q)) / 2, where q is the finished share of the training after warm-up (one cycle of SGDR,
    Loshchilov and Hutter, 2017). The finished share is computed from step / total_steps or from `time_fraction`, the
    used share of a time limit (0 without a limit), whichever is larger. So the rate also decays if a slow machine
    reaches the time limit first.
    """
    total = max(total_steps, 1)
    warmup = min(max(warmup_steps, 0), total)
    progress = min(max(step / total, time_fraction), 1.0)
    share = warmup / total
    if warmup and progress < share:
        return peak * min(1.0, progress / share + 1.0 / warmup)
    done = (progress - share) / (1.0 - share) if share < 1.0 else 0.0
    return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * done))
