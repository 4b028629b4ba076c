"""`tidal jobs …`: submits, lists, follows, pauses and stops jobs through the api."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from common.config import merge
from common.errors import InvalidInputError
from common.prediction.words import describe_measurement, describe_prediction
from services.cli.commands import steer
from services.cli.completion import complete_config, complete_job
from services.cli.configuration import read_overrides
from services.cli.connection import Token, Url, connect
from services.cli.output import age, duration, err, format_time, out, print_json, status_text, table
from services.cli.views.job_history import attempts, describe_events
from services.cli.views.queue import print_queue, time_until
from services.cli.views.samples import sample_tables
from services.cli.views.watch import watch as follow
from tidal_client import Client, Job
from tidal_client.vocabulary import CheckpointMode, DesiredState, JobStatus, JobType, Signal
from tidal_client.wire.job import JobReply
from tidal_client.wire.prediction import MachinePrediction, TrainingPrediction

app = typer.Typer(help="Submit, follow, pause and stop jobs.", no_args_is_help=True)

FOLLOW_SECONDS = 1.0

JobId = Annotated[
    str,
    typer.Argument(help="Id of the job, or `last` for the newest one.", metavar="JOB", autocompletion=complete_job),
]
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]


@app.command()
def submit(
    job_type: Annotated[JobType, typer.Argument(help="Type of the job.", metavar="TYPE")],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="YAML file with the configuration, on this machine or else in the server's configuration folder.",
            autocompletion=complete_config,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Override one value of the configuration: training.max_steps=200."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Corpus: builtin:stories, the name of a dataset, a file in the data folder, or OWNER/NAME on the "
            "Hugging Face hub.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            help="Language model: EXPERIMENT/FILE or EXPERIMENT/final. An lm-training job starts from it: it continues "
            "the training if the text is the same, and fine-tunes the weights otherwise.",
        ),
    ] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Take over only the weights of --checkpoint, even for the same text.")
    ] = False,
    rl_checkpoint: Annotated[
        str | None, typer.Option("--rl-checkpoint", help="Controller to compare in an ablation.")
    ] = None,
    resume_from: Annotated[
        str | None,
        typer.Option(
            "--resume-from",
            help="Id of an ended job, whose configuration and newest checkpoint are used, or a checkpoint: "
            "EXPERIMENT/checkpoints/NAME.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the job and its experiment.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Tag of the job. The option can be repeated.")] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", min=-100, max=100, help="Jobs with a higher priority start first.")
    ] = None,
    no_queue: Annotated[
        bool, typer.Option("--no-queue", help="Fail if the job cannot start at once, instead of waiting in the queue.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the job without submitting it.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job until it ends.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a job.

    The configuration describes a language model for lm-training, and a controller for rl-training, headroom and
    ablation. For evaluation, it has the keys of the section `evaluation`. Example: tidal jobs submit lm-training --data
    builtin:stories -s training.max_steps=200 --watch
    """
    # If the file exists on this machine, its contents are sent. Otherwise the name is sent, and the server opens the
    # file.
    local_file = Path(config) if config is not None and Path(config).is_file() else None
    if config is not None and local_file is None and config.startswith(("/", "./", "../", "~")):
        raise InvalidInputError(f"--config {config}: no such file on this machine")
    config_path = config if local_file is None else None
    values = read_overrides(local_file, settings or [])
    fields: dict[str, Any] = {
        "config_path" if job_type in (JobType.LM_TRAINING, JobType.EVALUATION) else "rl_config_path": config_path,
        "checkpoint": checkpoint,
        "checkpoint_mode": CheckpointMode.FINE_TUNE if fine_tune else None,
        "rl_checkpoint": rl_checkpoint,
        "resume_from": resume_from,
        "name": name,
        "tags": tags or None,
        "priority": priority,
        "queue": False if no_queue else None,
    }
    if data is not None and job_type is JobType.LM_TRAINING:
        values = merge(values, {"data": {"source": data}})
    elif data is not None:
        fields["data"] = {"source": data}
    with connect(url, token) as client:
        if dry_run:
            predicted = client.predict_job(job_type, config=values or None, **fields)
            print_json(predicted.model_dump(mode="json", by_alias=True))
            _print_prediction(predicted.training)
            return
        job = client.submit_job(job_type, config=values, **fields)
        if as_json:
            print_json(job.model_dump(mode="json", by_alias=True))
        else:
            place = f", position {job.queue_position} in the queue" if job.queue_position else ""
            out.print(f"Submitted {job.id}{place}.")
            out.print(f"Experiment {job.experiment_id}", soft_wrap=True)
            _print_prediction(job.prediction)
        if watch:
            _watch(client, job)
        elif not as_json:
            err.print(f"Follow the job with: tidal jobs watch {job.id}")


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option("--status", help="Show only jobs with this status.")] = None,
    job_type: Annotated[JobType | None, typer.Option("--type", help="Show only jobs of this type.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Show only jobs with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of jobs to show.")] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the newest jobs."""
    with connect(url, token) as client:
        jobs = client.jobs(status=status, job_type=job_type, tag=tag, limit=limit)
    if as_json:
        print_json([job.model_dump(mode="json", by_alias=True) for job in jobs])
        return
    if not jobs:
        err.print("No jobs. Submit one with `tidal jobs submit`.")
        return
    rows = table("job", "type", "status", "progress>", "name", "submitted")
    for job in jobs:
        rows.add_row(job.id, job.type, status_text(job.status), _progress(job), job.name or "", age(job.created_at))
    out.print(rows)


@app.command()
def queue(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=100, help="Maximum number of waiting jobs to show per type.")
    ] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the queue: limits, workers, and waiting jobs with their positions and predicted start times."""
    with connect(url, token) as client:
        queues = client.queues(limit=limit)
    if as_json:
        print_json([item.model_dump(mode="json", by_alias=True) for item in queues])
        return
    for item in queues:
        print_queue(item)


@app.command()
def show(job_id: JobId, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show a job: its state, what happens next and when, its attempts and its past events."""
    with connect(url, token) as client:
        job = _find(client, job_id)
        if as_json:
            print_json(job.model_dump(mode="json", by_alias=True))
            return
        events = client.job_events(job.id)
    out.print(_facts(job))
    if job.what_next:
        out.print(f"{job.what_next}\n", soft_wrap=True)
    if found := attempts(events):
        rows = table("attempt>", "began", "lasted>", "worker", "from", "newest checkpoint", "ended")
        for attempt in found:
            lasted = duration(((attempt.ended or datetime.now(UTC)) - attempt.began).total_seconds())
            start = format_time(attempt.began), lasted, attempt.worker, attempt.begin
            rows.add_row(str(attempt.number), *start, attempt.checkpoint, attempt.ending)
        out.print(rows)
    history = table("time", "attempt>", "event", "by", "status", "")
    for event, details in describe_events(events):
        change = f"{event.from_status or ''} → {event.to_status}" if event.to_status else ""
        history.add_row(
            format_time(event.at), str(event.attempt), event.event, event.actor, change, Text(details, style="dim")
        )
    out.print(history)


@app.command()
def watch(job_id: JobId, url: Url = None, token: Token = None) -> None:
    """Follow a job live: show its progress, loss and status. Ctrl-C ends only this command; the job continues."""
    with connect(url, token) as client:
        _watch(client, _find(client, job_id))


@app.command()
def logs(
    job_id: JobId,
    follow_on: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing new lines until the job has ended.")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option("--search", "-s", help="Print only lines that contain this text, ignoring upper and lower case."),
    ] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print the log of the trainer that runs the job."""
    with connect(url, token) as client:
        job = _find(client, job_id)
        cursor: str | None = None
        while True:
            ended = client.job(job.id).ended
            page = client.job_logs(job.id, cursor=cursor, search=search)
            for line in page.lines:
                out.out(line.text, highlight=False)
            cursor = page.next_cursor or cursor
            if page.complete and (ended or not follow_on):
                return
            if page.complete:
                time.sleep(FOLLOW_SECONDS)


@app.command()
def samples(
    job_id: JobId,
    prompt: Annotated[
        int | None, typer.Option("--prompt", "-p", min=1, help="Show only the prompt with this number.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=2000, help="Maximum number of steps to show.")] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the texts that a training generated every few steps (evaluation.samples_every_steps)."""
    with connect(url, token) as client:
        history = client.sample_history(_find(client, job_id).experiment_id, max_rows=rows)
    if as_json:
        print_json(history.model_dump(mode="json", by_alias=True))
        return
    for shown in sample_tables(history, prompt):
        out.print(shown)


@app.command()
def signal(
    job_id: JobId,
    name: Annotated[Signal, typer.Argument(help="The signal to send.", metavar="SIGNAL")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Send a signal to a job: pause, resume, complete or stop. The commands with these names do the same."""
    steer.steer(name.value, [job_id], every=False, yes=False, wait=False, url=url, token=token)


for command in (steer.pause, steer.resume, steer.complete, steer.stop, steer.cancel):
    app.command()(command)


def _watch(client: Client, job: Job) -> None:
    try:
        view = follow(client, job)
    except KeyboardInterrupt:
        err.print(f"\nThe job continues. `tidal jobs watch {job.id}` follows it again.")
        raise typer.Exit(130) from None
    ended = view.job
    numbers = f" · {view.summary()}" if view.summary() else ""
    out.print(status_text(ended.status).append(f" {ended.id}{numbers}", style=""))
    if ended.status == JobStatus.FAILED:
        if ended.error is not None:
            err.print(f"{ended.error.code}: {ended.error.message or ''}", soft_wrap=True)
        err.print(f"Show the log of the job with: tidal jobs logs {ended.id}")
        raise typer.Exit(1)


def _find(client: Client, job_id: str) -> Job:
    if job_id == "last" and (newest := client.jobs(limit=1)):
        job_id = newest[0].id
    return client.job(job_id)


def _print_prediction(prediction: TrainingPrediction | None) -> None:
    """Print what the training needs, to stderr, so that stdout is the same with and without a prediction."""
    if prediction is None:
        return
    warnings = {text for machine in prediction.machines for text in machine.warnings}
    for line in describe_prediction(prediction):
        err.print(line, style="bold red" if line in warnings else "dim", soft_wrap=True, highlight=False)


def _facts(job: Job) -> Table:
    finished, started = job.finished_at, job.started_at
    facts: dict[str, str | Text | None] = {
        "type": job.type,
        "status": status_text(job.status),
        "requested": ("cancel" if job.cancel_requested else job.desired_state)
        if job.desired_state != DesiredState.RUN
        else None,
        "name": job.name,
        "experiment": job.experiment_id,
        "progress": _progress(job),
        "phase": job.progress.phase if not job.ended else None,
        "queue place": str(job.queue_position) if job.queue_position else None,
        "not before": format_time(job.not_before) if job.not_before and job.status == JobStatus.PENDING else None,
        "starts about": time_until(job.predicted_start) if job.predicted_start else None,
        "attempt": str(job.attempt) if job.attempt else None,
        "worker": job.worker,
        "resumes": job.parent_id,
        "checkpoint": job.checkpoint_ref,
        "error": f"{job.error.code}: {job.error.message or ''}" if job.error else None,
        "accepts": ", ".join([*job.signals, "cancel"]) if not job.ended else None,
        "took": duration((finished - started).total_seconds()) if finished and started else None,
        "predicted": "\n".join(describe_prediction(job.prediction)) if job.prediction and not job.measurement else None,
        "measured": "\n".join(describe_measurement(job.measurement, _predicted(job))) if job.measurement else None,
    }
    grid = table("", "", title=job.id)
    grid.show_header = False
    for key, value in facts.items():
        if value:
            grid.add_row(Text(key, style="dim"), value if isinstance(value, Text) else Text(value))
    return grid


def _predicted(job: Job) -> MachinePrediction | None:
    """Return the prediction for the kind of machine that has run the job."""
    machines = job.prediction.machines if job.prediction else []
    return next((found for found in machines if job.measurement and found.machine == job.measurement.machine), None)


def _progress(job: JobReply) -> str:
    step, total = job.progress.step, job.progress.total_steps
    if not step:
        return ""
    return f"{step} / {total}" if total else str(step)
