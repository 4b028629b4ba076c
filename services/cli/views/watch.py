"""Follows a job live and shows its progress: as a bar on a terminal, otherwise as lines."""

from __future__ import annotations

import queue
import threading
import time
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from common.errors import TidalError, UnavailableError
from common.terminal import printable
from services.cli.output import duration, err, status_text
from services.cli.views.job import JobView
from tidal_client import Client, Job, StreamEvent
from tidal_client.vocabulary import JobStatus

LINE_SECONDS = 10.0
"""Seconds between two progress lines if the output is not a terminal."""
POLL_SECONDS = 3.0
"""Seconds between two requests for the job. The requests are needed in case an event of the stream is late."""
PATIENCE_SECONDS = 60.0
"""`watch` fails if the api has not replied for this number of seconds."""


class Display(Protocol):
    """Shows the state of a job to the user."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def remark(self, line: str) -> None:
        """Print a line of text."""

    def refresh(self) -> None:
        """Show the current state of the job."""


def watch(client: Client, job: Job, *, label: str | None = None, console: Console = err) -> JobView:
    """Follow `job` until it has ended or is paused, and return its last state.

    Ctrl-C raises KeyboardInterrupt and does not affect the job. Raises UnavailableError if the api does not respond for
    PATIENCE_SECONDS.
    """
    view = JobView(job)
    title = label or job.name or job.type
    display: Display = _BarDisplay(view, title, console) if console.is_terminal else _LineDisplay(view, title, console)
    events: queue.SimpleQueue[StreamEvent | TidalError] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(client, job.experiment_id, events), daemon=True, name="event reader")
    reader.start()
    poll_at, contact = 0.0, time.monotonic()
    with display:
        while True:
            try:
                event: StreamEvent | TidalError | None = events.get(timeout=0.25)
            except queue.Empty:
                event = None
            remarks: list[str] = []
            if isinstance(event, StreamEvent):
                contact = time.monotonic()
                remarks += view.apply(event)
            if time.monotonic() >= poll_at:
                try:
                    remarks += view.update(client.job(job.id))
                    contact = time.monotonic()
                except UnavailableError:
                    if time.monotonic() - contact > PATIENCE_SECONDS:
                        raise
                poll_at = time.monotonic() + POLL_SECONDS
            for line in remarks:
                display.remark(line)
            display.refresh()
            if view.job.ended or view.job.status == JobStatus.PAUSED:
                return view


def _read(client: Client, experiment_id: str, into: queue.SimpleQueue[StreamEvent | TidalError]) -> None:
    try:
        for event in client.follow_experiment(experiment_id, log_lines=False):
            into.put(event)
    except TidalError as error:
        into.put(error)
    except RuntimeError:  # only possible if the client was closed because `watch` has ended
        return


class _BarDisplay:
    """Shows a progress bar on a terminal."""

    def __init__(self, view: JobView, title: str, console: Console) -> None:
        self._view = view
        self._title = title
        self._console = console
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TextColumn("{task.fields[phase]}", style="dim", markup=False),
            TextColumn("{task.fields[numbers]}", markup=False),
            TextColumn("{task.fields[clock]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(printable(title), total=None, phase="", numbers="", clock="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()
        self._progress.stop()

    def remark(self, line: str) -> None:
        status, _, rest = line.partition(" ")
        word = status.rstrip(":")
        self._progress.console.print(Text.assemble("  ", status_text(word), status[len(word) :], " ", rest))

    def refresh(self) -> None:
        view = self._view
        elapsed = duration(time.monotonic() - self._started)
        left = f" · about {duration(view.seconds_left)} left" if view.seconds_left else ""
        self._progress.update(
            self._task,
            total=100.0 if view.fraction else None,
            completed=100.0 * view.fraction,
            phase=view.phase if view.phase not in ("", "training") else "",
            numbers=view.summary(),
            clock=elapsed + left,
        )


class _LineDisplay:
    """Prints a line for each call of `remark`, and a progress line every LINE_SECONDS, for logs and pipes."""

    def __init__(self, view: JobView, title: str, console: Console) -> None:
        self._view = view
        self._title = title
        self._console = console
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def remark(self, line: str) -> None:
        self._console.print(f"{self._title}: {line}", soft_wrap=True)

    def refresh(self) -> None:
        if time.monotonic() < self._next or not self._view.step:
            return
        view = self._view
        share = f"{view.fraction:4.0%}" if view.fraction else ""
        parts = [share, f"step {view.step}", view.phase if view.phase != "training" else "", view.summary()]
        self._console.print(f"{self._title}: {' · '.join(part for part in parts if part)}", soft_wrap=True)
        self._next = time.monotonic() + LINE_SECONDS
