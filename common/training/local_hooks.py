"""`TrainingHooks` for a terminal: a progress bar, a line per event, and metrics in the experiment's folder.

Ctrl-C requests a pause: the training writes a checkpoint and ends; the same command resumes from that checkpoint. A
second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.disk import DiskReserve, Shortage
from common.metrics import EventFile, MetricsWriter, names
from common.prediction.words import describe_measurement
from common.training.disk_hooks import DiskHooks
from common.training.hooks import SavedCheckpoint, StopRequest
from tidal_client.vocabulary import MEASURED, WAITING_FOR_DISK
from tidal_client.wire.prediction import TrainingMeasurement

PRINT_SECONDS = 10.0
"""Seconds between two printed lines of metrics."""
_PRINTED = {
    names.LOSS: "loss",
    names.VALIDATION_LOSS: "validation loss",
    names.PERPLEXITY: "perplexity",
    names.BITS_PER_BYTE: "bits/byte",
    names.LEARNING_RATE: "learning rate",
    names.TOKENS_PER_SECOND: "tokens/s",
    names.BYTES_PER_SECOND: "bytes/s",
    names.GEMM_SHARE: "GEMM share",
    names.EPISODE_REWARD: "episode reward",
    names.ENTROPY: "entropy",
    names.MODULATION_MEAN: "modulation",
}


class LocalHooks(DiskHooks):
    """Hooks of a local training, used as a context manager; `directory` is the experiment's folder.

    With `tensorboard`, metrics are also written as TensorBoard event files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        attempt: int = 1,
        console: Console | None = None,
        reserve: DiskReserve | None = None,
        tensorboard: bool = False,
    ) -> None:
        event_file = EventFile(directory, attempt) if tensorboard else None
        super().__init__(
            reserve, MetricsWriter(directory, None, directory.name, "local", attempt, event_file=event_file)
        )
        self.console = console or Console()
        self._attempt = attempt
        self._phase = "starting"
        self._waiting = False
        self._request: StopRequest | None = None
        self._started = False
        self._printed_at = -PRINT_SECONDS
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._bar = self._progress.add_task("starting", total=1.0, steps="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._writer.close()

    def request(self, request: StopRequest) -> None:
        """Record a stop request from a signal handler; raise KeyboardInterrupt if an earlier one is recorded."""
        if self._request is not None:
            raise KeyboardInterrupt
        self._request = request
        # The signal may interrupt a print, and printing is not reentrant: a nested call raises RuntimeError.
        with contextlib.suppress(RuntimeError):
            self.console.print(
                "stopping at the next step with a checkpoint; press Ctrl-C again to end at once", style="yellow"
            )

    def phase(self, name: str) -> None:
        """Show the phase next to the progress bar."""
        self._phase = name
        self._progress.update(self._bar, description=name)

    def report_metrics(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Archive the metrics. Print them every few seconds, and always if they include a validation loss."""
        self._writer.add(kind, step, values)
        now = time.monotonic()
        if now - self._printed_at < PRINT_SECONDS and names.VALIDATION_LOSS not in values:
            return
        self._printed_at = now
        shown = [f"{label} {values[name]:,.4g}" for name, label in _PRINTED.items() if name in values]
        self.console.print(f"step {step:>6}  " + "  ".join(shown), highlight=False)

    def report_progress(self, step: int, total_steps: int, time_share: float = 0.0) -> None:
        """Update the progress bar, which shows the used share of steps or time, whichever is larger."""
        if not self._started:
            self._started = True
            if self._attempt > 1:
                self._writer.rewind(step)
        share = max(step / max(total_steps, 1), time_share)
        self._progress.update(self._bar, completed=share, steps=f"step {step:,}/{total_steps:,}")

    def requested_stop(self) -> StopRequest | None:
        """Return the stop request that a signal such as Ctrl-C has caused, or None."""
        return self._request

    def waiting_for_disk(self, shortage: Shortage | None) -> None:
        """Print a line when the wait begins and when it ends; show the shortage next to the progress bar."""
        if shortage is None:
            self._waiting = False
            self.console.print("there is enough disk space again; training continues", style="yellow")
            self._progress.update(self._bar, description=self._phase)
            return
        if not self._waiting:
            self._waiting = True
            self.console.print(
                f"waiting for disk space: {shortage}. Free some space, and training continues by itself. "
                "Ctrl-C stops it with a checkpoint.",
                style="yellow",
                highlight=False,
            )
        self._progress.update(self._bar, description=f"waiting for disk space, {shortage}")

    def wait_while_suspended(self) -> None:
        """Return at once: a local training has no lease."""

    def offer_checkpoint(self, save: Callable[[], SavedCheckpoint | None] | None) -> None:
        """Ignore the offer: a second Ctrl-C ends the training at once."""

    def before_checkpoint(self) -> None:
        """Write the metrics so far to disk before the checkpoint becomes visible."""
        self.flush_metrics()

    def checkpoints_kept(self, names: Sequence[str]) -> None:
        """Do nothing."""

    def checkpoints_withdrawn(self, names: Sequence[str], newest: SavedCheckpoint | None) -> None:
        """Print the withdrawn checkpoints."""
        if names:
            self.console.print(
                f"checkpoints withdrawn, because training diverged after them: {', '.join(names)}", highlight=False
            )

    def checkpoint_saved(self, info: SavedCheckpoint) -> None:
        """Print the name and size of the checkpoint."""
        self.console.print(f"checkpoint {info.name} ({info.size_bytes / 1e6:,.1f} MB)", style="dim", highlight=False)

    def artifact_saved(self, name: str, kind: str) -> None:
        """Print the kind and name of the file."""
        self.console.print(f"{kind}: {name}", highlight=False)

    def event(self, name: str, **details: Any) -> None:
        """Print the event.

        Events of a wait for disk space are skipped, because `waiting_for_disk` prints lines for them.
        """
        if name in (WAITING_FOR_DISK, "disk_wait_ended"):
            return
        if name == MEASURED:
            lines = describe_measurement(TrainingMeasurement.model_validate(details), None)
            self.console.print(f"needed: {', '.join(lines)}", highlight=False)
            return
        text = ", ".join(f"{key} {value}" for key, value in details.items())
        self.console.print(f"{name.replace('_', ' ')}: {text}", highlight=False)
