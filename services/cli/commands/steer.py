"""`tidal jobs pause | resume | complete | stop | cancel`: sends requests to jobs and optionally waits for the result.

Each command prints what the api reports: what will happen to the job, and by when. With `--wait`, the command ends only
when this has happened. If a job does not accept the request, the command prints the reason and continues with the other
jobs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from common.errors import ConflictError, InvalidInputError, NotFoundError, TidalError, UnavailableError
from common.words import plural
from services.cli.connection import Token, Url, connect
from services.cli.output import err, out, print_error, status_text
from tidal_client import Client, Job
from tidal_client.vocabulary import LIVE, JobStatus, Signal
from tidal_client.wire.job import JobReply

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""With `--wait`, the command fails if the api has not replied for this number of seconds."""
CANCEL = "cancel"
"""Name of the command that stops a job, and kills it if it has not ended within the grace period. In the api, `cancel`
is not a signal but a separate endpoint.
"""


@dataclass(frozen=True)
class SteeringCommand:
    """A command that sends a request to a job. A job in one of `target_statuses` has fulfilled the request."""

    name: str
    target_statuses: frozenset[str]

    def is_accepted_by(self, job: JobReply) -> bool:
        """Return whether the job accepts this request in its current state."""
        return not job.ended if self.name == CANCEL else self.name in job.signals

    def is_settled(self, job: Job) -> bool:
        """Return whether waiting can end: the job has fulfilled the request, or has ended without fulfilling it."""
        return job.ended or job.status in self.target_statuses


STEERING_COMMANDS = {
    command.name: command
    for command in (
        SteeringCommand(Signal.PAUSE, frozenset({JobStatus.PAUSED})),
        SteeringCommand(Signal.RESUME, frozenset({JobStatus.RUNNING, JobStatus.COMPLETING, JobStatus.COMPLETED})),
        SteeringCommand(Signal.COMPLETE, frozenset({JobStatus.COMPLETED})),
        SteeringCommand(Signal.STOP, frozenset({JobStatus.CANCELLED})),
        SteeringCommand(CANCEL, frozenset({JobStatus.CANCELLED})),
    )
}

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of jobs, or `last` for the newest job.", metavar="JOB...")]
All = Annotated[
    bool, typer.Option("--all", help="Apply the command to all jobs that accept it now. Asks for confirmation.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the jobs have reached the requested status.")]


def pause(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Pause jobs: write a checkpoint, free the worker, and wait for `tidal jobs resume`."""
    steer(Signal.PAUSE, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def resume(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Put paused jobs back into the queue. They continue from their newest checkpoint."""
    steer(Signal.RESUME, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def complete(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Complete jobs: end the training now, evaluate, and write the final model."""
    steer(Signal.COMPLETE, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def stop(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Stop jobs: write a checkpoint, and end with status cancelled. A new job can continue with `--resume-from`."""
    steer(Signal.STOP, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def cancel(
    ids: Ids = None, every: All = False, yes: Yes = False, wait: Wait = False, url: Url = None, token: Token = None
) -> None:
    """Stop jobs, and kill those that do not end within the grace period. Pending and paused jobs end at once."""
    steer(CANCEL, ids, every=every, yes=yes, wait=wait, url=url, token=token)


def steer(
    name: str, ids: Sequence[str] | None, *, every: bool, yes: bool, wait: bool, url: str | None, token: str | None
) -> None:
    """Send the request to the jobs and print what will happen to them. If `wait` is true, wait until it has happened.

    Exits with status 1 if a job did not accept the request, or ended without fulfilling it.
    """
    command = STEERING_COMMANDS[name]
    with connect(url, token) as client:
        chosen = _choose_jobs(client, command, ids or (), every=every, yes=yes)
        accepted = [job for job in (_send(client, command, job_id) for job_id in chosen) if job is not None]
        ended = [_wait(client, command, job) for job in accepted] if wait else accepted
    fulfilled = all(job.status in command.target_statuses for job in ended) if wait else True
    if len(accepted) < len(chosen) or not fulfilled:
        raise typer.Exit(1)


def _choose_jobs(client: Client, command: SteeringCommand, ids: Sequence[str], *, every: bool, yes: bool) -> list[str]:
    if every == bool(ids):
        raise InvalidInputError(f"give the ids of the jobs to {command.name}, or use --all (not both)")
    if not every:
        return [_newest(client) if job_id == "last" else job_id for job_id in dict.fromkeys(ids)]
    # A job whose status changes between two requests may be listed twice, so jobs are collected by id.
    live = {job.id: job for status in JobStatus if status in LIVE for job in client.jobs(status=status, limit=None)}
    found = [job for job in live.values() if command.is_accepted_by(job)]
    if not found:
        err.print(f"No job accepts {command.name} now.")
    elif not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(
                f"--all would {command.name} {plural(len(found), 'job')}; there is no terminal to ask for "
                "confirmation, so add --yes"
            )
        typer.confirm(f"{command.name.capitalize()} {plural(len(found), 'job')}?", abort=True, err=True)
    return [job.id for job in found]


def _newest(client: Client) -> str:
    newest = client.jobs(limit=1)
    if not newest:
        raise NotFoundError("there are no jobs yet; submit one with `tidal jobs submit`")
    return newest[0].id


def _send(client: Client, command: SteeringCommand, job_id: str) -> Job | None:
    """Send the request and return the job. If the job does not accept the request, print the reason and return None."""
    try:
        job = client.cancel_job(job_id) if command.name == CANCEL else client.signal_job(job_id, command.name)
    except (ConflictError, NotFoundError) as error:
        print_error(error.message)
        return None
    _print_state(job)
    return job


def _wait(client: Client, command: SteeringCommand, job: Job) -> Job:
    """Wait until the job has fulfilled the request or ended.

    Raises UnavailableError after PATIENCE_SECONDS without reply.
    """
    shown = (job.status, job.queue_position)
    contact = time.monotonic()
    status: Any = err.status(Text(f"{job.id}: waiting for status {' or '.join(sorted(command.target_statuses))} …"))
    try:
        with status:
            while not command.is_settled(job):
                time.sleep(POLL_SECONDS)  # polling, because events of the stream do not contain `what_next`
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
                    _print_state(job)
    except KeyboardInterrupt:
        err.print(
            "\nThis command no longer waits, but the request remains active. Show the job with: tidal jobs show "
            f"{job.id}"
        )
        raise typer.Exit(130) from None
    except TidalError as error:
        raise type(error)(f"{job.id}: {error.message}; the request remains active") from error
    return job


def _print_state(job: Job) -> None:
    place = f", position {job.queue_position} in the queue" if job.queue_position else ""
    reason = f" {job.error.code}: {job.error.message or ''}." if job.error and job.status == JobStatus.FAILED else ""
    line = Text.assemble(f"{job.id}  ", status_text(job.status), f"{place}.{reason} {job.what_next}".rstrip())
    out.print(line, soft_wrap=True)
