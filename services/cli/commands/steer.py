"""`tidal jobs pause | resume | complete | stop | cancel`: what a user wants of jobs, and what became of it.

Each says at once what will happen and by when (the api knows the timers); `--wait` stays until it has. A job that does
not take the wish is named, the others get it all the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from common.errors import ConflictError, InvalidInputError, NotFoundError, TidalError, UnavailableError
from common.words import plural
from services.cli.connection import Token, Url, connect
from services.cli.output import err, fail, out, status_text
from tidal_client import Client, Job
from tidal_client.vocabulary import LIVE, JobStatus, Signal
from tidal_client.wire.job import JobReply

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""Longest time without an answer of the api while waiting, in seconds."""
CANCEL = "cancel"
"""Stop, then kill after the grace period. The api has a separate endpoint for it; it is not a signal."""


@dataclass(frozen=True)
class Wish:
    """A command, and the statuses in which it has come about."""

    name: str
    wanted: frozenset[str]

    def takes(self, job: JobReply) -> bool:
        """Return whether `job` accepts this request now."""
        return not job.ended if self.name == CANCEL else self.name in job.signals

    def settled(self, job: Job) -> bool:
        """Whether nothing more will come of it."""
        return job.ended or job.status in self.wanted


WISHES = {
    wish.name: wish
    for wish in (
        Wish(Signal.PAUSE, frozenset({JobStatus.PAUSED})),
        Wish(Signal.RESUME, frozenset({JobStatus.RUNNING, JobStatus.COMPLETING, JobStatus.COMPLETED})),
        Wish(Signal.COMPLETE, frozenset({JobStatus.COMPLETED})),
        Wish(Signal.STOP, frozenset({JobStatus.CANCELLED})),
        Wish(CANCEL, frozenset({JobStatus.CANCELLED})),
    )
}

Ids = Annotated[list[str] | None, typer.Argument(help="Ids, or `last` for the newest job.", metavar="JOB...")]
All = Annotated[bool, typer.Option("--all", help="Every job that takes it now; asks first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until it has happened.")]


def pause(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Write a checkpoint and free the slot, until `tidal jobs resume`."""
    steer(Signal.PAUSE, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def resume(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Put a paused job back into the queue; it goes on at the next step."""
    steer(Signal.RESUME, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def complete(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """End the training now, evaluate, write the final model: completed."""
    steer(Signal.COMPLETE, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def stop(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Write a checkpoint and end as cancelled. A new job can go on from there with `--resume-from`."""
    steer(Signal.STOP, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def cancel(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Like stop, and killed at the end of the grace. Pending and paused jobs end at once."""
    steer(CANCEL, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def steer(
    name: str, ids: Sequence[str] | None, *, every: bool, yes: bool, wait: bool, url: str | None, token: str | None
) -> None:
    """Ask the jobs, say what happens, wait if wanted.

    Exit status 1 when a job could not be asked, or did not come to what was wanted.
    """
    wish = WISHES[name]
    with connect(url, token) as client:
        chosen = _chosen(client, wish, ids or (), every=every, yes=yes)
        asked = [job for job in (_ask(client, wish, job_id) for job_id in chosen) if job is not None]
        ended = [_wait(client, wish, job) for job in asked] if wait else asked
    reached = all(job.status in wish.wanted for job in ended) if wait else True
    if len(asked) < len(chosen) or not reached:
        raise typer.Exit(1)


def _chosen(client: Client, wish: Wish, ids: Sequence[str], *, every: bool, yes: bool) -> list[str]:
    if every == bool(ids):
        raise InvalidInputError(f"name the jobs to {wish.name}, or give --all")
    if not every:
        return [_newest(client) if job_id == "last" else job_id for job_id in dict.fromkeys(ids)]
    # A job that moves on meanwhile may be met twice.
    live = {job.id: job for status in JobStatus if status in LIVE for job in client.jobs(status=status, limit=None)}
    found = [job for job in live.values() if wish.takes(job)]
    if not found:
        err.print(f"No job takes {wish.name} now.")
    elif not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(
                f"--all would {wish.name} {plural(len(found), 'job')}; add --yes to do so without a question"
            )
        typer.confirm(f"{wish.name.capitalize()} {plural(len(found), 'job')}?", abort=True, err=True)
    return [job.id for job in found]


def _newest(client: Client) -> str:
    newest = client.jobs(limit=1)
    if not newest:
        raise NotFoundError("there are no jobs yet")
    return newest[0].id


def _ask(client: Client, wish: Wish, job_id: str) -> Job | None:
    """Return the job after the request, or None when it does not accept the request."""
    send: Callable[[], Job] = (
        (lambda: client.cancel_job(job_id)) if wish.name == CANCEL else (lambda: client.signal_job(job_id, wish.name))
    )
    try:
        job = send()
    except (ConflictError, NotFoundError) as error:
        fail(error.message)
        return None
    _tell(job)
    return job


def _wait(client: Client, wish: Wish, job: Job) -> Job:
    """Until it is settled; UnavailableError when the api stays away."""
    shown = (job.status, job.queue_position)
    contact = time.monotonic()
    status: Any = err.status(Text(f"{job.id}: waiting for {' or '.join(sorted(wish.wanted))} …"))
    try:
        with status:
            while not wish.settled(job):
                time.sleep(POLL_SECONDS)  # the stream tells it sooner, but not what comes next
                try:
                    job = client.job(job.id)
                except UnavailableError:
                    if time.monotonic() - contact > PATIENCE_SECONDS:
                        raise
                    continue
                contact = time.monotonic()
                status.update(Text(f"{job.id}: {job.what_next or job.status}"))
                if (job.status, job.queue_position) != shown:
                    shown = (job.status, job.queue_position)
                    _tell(job)
    except KeyboardInterrupt:
        err.print(f"\nNo longer waiting; the wish stands. `tidal jobs show {job.id}` tells what became of it.")
        raise typer.Exit(130) from None
    except TidalError as error:
        raise type(error)(f"{job.id}: {error.message}; the wish stands") from error
    return job


def _tell(job: Job) -> None:
    place = f", place {job.queue_position} in the queue" if job.queue_position else ""
    reason = f" {job.error.code}: {job.error.message or ''}." if job.error and job.status == JobStatus.FAILED else ""
    line = Text.assemble(f"{job.id}  ", status_text(job.status), f"{place}.{reason} {job.what_next}".rstrip())
    out.print(line, soft_wrap=True)
