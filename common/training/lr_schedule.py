"""The learning rate of pretraining: linear warm-up, then decay over the used share of steps or time."""

from __future__ import annotations

import math

from common.config.lm import Schedule


def finished_share(step: int, total_steps: int, time_fraction: float = 0.0) -> float:
    """Return the finished share of a training before update `step` (the first is 0), at most 1.

    It is step / total_steps or `time_fraction`, the used share of a time limit (0 without a limit), whichever is
    larger. So the learning rate also decays if a slow machine reaches the time limit first.
    """
    return min(max(step / max(total_steps, 1), time_fraction), 1.0)


def scheduled_rate(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int,
    peak: float,
    floor: float,
    time_fraction: float = 0.0,
    schedule: Schedule = "cosine",
    decay_ratio: float = 0.0,
) -> float:
    """Return the learning rate of update `step` (the first is 0).

    The warm-up rises from peak / warmup_steps at step 0 to peak at step warmup_steps − 1. Let q be the finished share
    of the training after warm-up (`finished_share`). After the warm-up the rate is

    * cosine: floor + (peak − floor) · (1 + cos(π q)) / 2 (one cycle of SGDR, Loshchilov and Hutter, 2017);
    * linear: peak − (peak − floor) · q;
    * wsd: peak until the last share `decay_ratio` of the whole training, then a line to floor (warm-up, stable, decay:
      Hu et al. 2024, MiniCPM, section 4; a line as in Hägele et al. 2024).
    """
    total = max(total_steps, 1)
    warmup = min(max(warmup_steps, 0), total)
    progress = finished_share(step, total, time_fraction)
    share = warmup / total
    if warmup and progress < share:
        return peak * min(1.0, progress / share + 1.0 / warmup)
    done = (progress - share) / (1.0 - share) if share < 1.0 else 0.0
    if schedule == "cosine":
        return floor + 0.5 * (peak - floor) * (1.0 + math.cos(math.pi * done))
    if schedule == "linear":
        return peak - (peak - floor) * done
    left = (1.0 - progress) / decay_ratio if decay_ratio > 0.0 else 1.0
    return floor + (peak - floor) * min(1.0, left)
