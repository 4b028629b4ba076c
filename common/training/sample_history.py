"""Stores the sample texts that a training generates every few steps, so that a table shows how they change.

The file `evaluation_results/samples.jsonl` in the experiment's folder has one line per step: `{"step", "samples":
[{"prompt", "generated", "tokens"}]}`. All lines are generated with the same seeds, so lines of different steps can be
compared. A line is appended whole: a failed write is undone, and what a crash left after the last line end is removed
by the next attempt. A resumed training removes the lines of steps after the one at which it resumes.
The API reads the file in `services.api.operations.experiments`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common.config.lm import EvaluationConfig
from common.errors import CheckpointError, DivergedError, StorageError
from common.files import flush, storage_errors
from common.model import TransformerLM
from common.training.disk_wait import StoppedWaiting, write_when_disk_has_space
from common.training.evaluation import generate_samples
from common.training.hooks import TrainingHooks
from common.training.loading import LongPhase
from common.training.random_state import capture_random_state, restore_random_state

SAMPLES_FILE = "evaluation_results/samples.jsonl"


class SampleRecorder:
    """The samples over the steps of one training. `step` is the step at which this attempt begins."""

    def __init__(self, directory: Path, config: EvaluationConfig, hooks: TrainingHooks, *, step: int) -> None:
        self._path = directory / SAMPLES_FILE
        self._config = config
        self._hooks = hooks
        self._begins_at = step
        self._rewound = False
        self._newest: int | None = None

    def is_due(self, step: int) -> bool:
        """Return whether samples are due after `step`, and not yet stored."""
        every = self._config.samples_every_steps
        if every is None or self._has(step):
            return False
        return step > 0 and step % every == 0

    def generate(self, model: TransformerLM, step: int, *, keep_going: Callable[[], bool]) -> bool:
        """Generate samples and store them; return False if `keep_going` returned False before they were stored.

        The random numbers of the training are not affected. Waits while the disk is full; a stop request ends the wait
        and counts as `keep_going` returning False. Raises StorageError for any other error of the disk, and
        DivergedError when the logits are not finite.
        """
        phase = LongPhase(self._hooks, "sampling")

        def interrupted() -> bool:
            phase.heartbeat()
            return not keep_going()

        random_state, was_training = capture_random_state(), model.training
        try:
            samples = generate_samples(model, self._config, cancelled=interrupted)
        except CheckpointError as error:  # the weights come from this training, not from a damaged file
            raise DivergedError("a logit of the samples is not finite", quantity="a logit of the samples") from error
        finally:
            model.train(was_training)
            restore_random_state(random_state)
        if samples is None:
            return False
        try:
            self.add(step, samples)
        except StoppedWaiting:
            return False
        self._hooks.phase("training")
        return True

    def add(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Store the samples after `step`, unless they are stored already or `samples_every_steps` is not set.

        Waits while the disk is full. Raises StoppedWaiting on a stop request during the wait, and StorageError for any
        other error of the disk.
        """
        if self._config.samples_every_steps is None or self._has(step):
            return
        line = json.dumps({"step": step, "samples": samples}, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._hooks.wait_while_suspended()
        write_when_disk_has_space(self._hooks, partial(_append, self._path, line))
        self._newest = step

    def _has(self, step: int) -> bool:
        if not self._rewound:
            self._rewind()
        return self._newest is not None and self._newest >= step

    def _rewind(self) -> None:
        """Remove the lines of steps after the one at which this attempt begins; an earlier attempt wrote them."""
        self._rewound = True
        if not self._path.is_file():
            return
        try:
            keep = self._kept_bytes()
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        if keep < self._path.stat().st_size:
            self._hooks.wait_while_suspended()
            with storage_errors(self._path):
                os.truncate(self._path, keep)
                flush(self._path)

    def _kept_bytes(self) -> int:
        """Return the size of the lines of earlier steps, and store the step of the last of them."""
        keep = 0
        with self._path.open("rb") as file:
            for line in file:
                step = _step_of(line)
                if step is None or step > self._begins_at:
                    break
                self._newest = step
                keep += len(line)
        return keep


def _step_of(line: bytes) -> int | None:
    """Return the step of a line; None if the line is incomplete or invalid."""
    if not line.endswith(b"\n"):
        return None
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _append(path: Path, line: bytes) -> None:
    """Append `line` and flush it to the disk. After an error, the file has its previous content.

    Raises DiskFullError when the disk is full, StorageError for any other error.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                written = file.write(line)
                while written < len(line):
                    written += file.write(line[written:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
