"""Measures what an attempt of a pretraining needs: the time of its steps, its speed and its peak memory.

The measurement is reported as the event `measured` when the training completes. The api compares it with the
prediction, and predicts later trainings of the same shape from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from common.config.lm import LMConfig
from common.prediction.calibration import read_calibration
from common.prediction.estimate import shape_key
from common.prediction.machine import this_machine
from common.prediction.model_size import flops_per_token
from common.training.device import ComputeConfig
from common.training.peak_memory import PeakMemory
from tidal_client.wire.prediction import TrainingMeasurement

MEASUREMENT_FILE = "measurement.json"
"""File in the experiment's folder with the values of the event `measured`."""


class RunMeter:
    """The meter of one attempt; create it before the model is built."""

    def __init__(self, config: LMConfig, compute: ComputeConfig, data_dir: Path) -> None:
        self._config, self._compute = config, compute
        self._machine = this_machine()
        self._peak = PeakMemory(compute.device)
        self._seconds = 0.0
        self._running_since: float | None = None
        self._first_step: tuple[float, int] | None = None
        calibration = read_calibration(data_dir, self._machine)
        fits = calibration is not None and (
            calibration.precision == compute.precision
            and calibration.machine.uses_gpu == (compute.device.type == "cuda")
        )
        self._gemm = calibration.gemm_flops_per_second if calibration is not None and fits else None

    def start(self) -> None:
        """Start, or continue, the clock of the training steps."""
        self._running_since = time.monotonic()

    def stop(self) -> None:
        """Stop the clock of the training steps."""
        if self._running_since is not None:
            self._seconds += time.monotonic() - self._running_since
            self._running_since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of this block as time of the steps."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def first_step_ended(self, tokens: int) -> None:
        """Record the end of the first step, which trained `tokens` tokens and may have included a compilation."""
        self._first_step = (self._steps_seconds(), tokens)

    def observe_memory(self) -> None:
        """Update the peak memory. Takes less than a millisecond."""
        self._peak.observe()

    def gemm_share(self, tokens_per_second: float, length: int) -> float | None:
        """Return the model's FLOPs per second as a share of the machine's GEMM rate; None if this rate is unknown.

        `length` is T of the sequences.
        """
        if self._gemm is None:
            return None
        return flops_per_token(self._config.model, length) * tokens_per_second / self._gemm

    def measurement(self, *, steps: int, tokens: int, resumed: bool) -> TrainingMeasurement:
        """Return the measurement of an attempt that has taken `steps` steps with `tokens` tokens."""
        seconds = self._steps_seconds()
        speed = tokens / seconds if tokens and seconds > 0 else None
        if self._first_step is not None:
            first_seconds, first_tokens = self._first_step
            if tokens > first_tokens and seconds > first_seconds:
                speed = (tokens - first_tokens) / (seconds - first_seconds)
        return TrainingMeasurement(
            machine=self._machine.key,
            shape=shape_key(self._config),
            device=self._compute.device.type,
            precision=self._compute.precision,
            compiled=self._compute.compiles,
            steps=steps,
            tokens=tokens,
            seconds=round(time.time() - psutil.Process().create_time(), 3),
            training_seconds=round(seconds, 3),
            tokens_per_second=None if speed is None else round(speed, 3),
            memory_bytes=self._peak.observe(),
            resumed=resumed,
        )

    def _steps_seconds(self) -> float:
        since = self._running_since
        return self._seconds + (0.0 if since is None else time.monotonic() - since)
