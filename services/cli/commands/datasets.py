"""`tidal datasets …`: uploads, lists, shows and deletes datasets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from common.datasets import FORMATS, file_name_problem, split_name, suggest_name
from common.errors import InvalidInputError, JobFailed
from common.words import plural
from services.cli.connection import Token, Url, connect
from services.cli.output import age, err, format_size, out, print_json, status_text, table
from tidal_client import Client
from tidal_client.vocabulary import JobStatus

app = typer.Typer(help="Upload and manage your own text.", no_args_is_help=True)

POLL_SECONDS = 0.5

Name = Annotated[str, typer.Argument(help="Name of the dataset.")]
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="File to upload: .txt, .jsonl or .parquet; may be gzipped.")],
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of the dataset. [default: derived from the file name]")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="Format of the file: txt, jsonl or parquet. [default: derived from the suffix]"
        ),
    ] = None,
    text_field: Annotated[
        str | None,
        typer.Option(
            "--text-field",
            help="Name of the field or column that contains the text, in jsonl and parquet files. [default: text]",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Wait until the dataset is tokenised.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Upload a file as a dataset.

    A job then tokenises the dataset. Train on it with `tidal jobs submit lm-training --data NAME`.

    In a .txt file, `<|endoftext|>` separates documents. Uploading the same file again changes nothing. The name of the
    dataset is derived from the file name: `my stories.txt` becomes `my-stories`.
    """
    if not file.is_file():
        raise InvalidInputError(f"{file}: no such file on this machine; give the path of one file")
    if name is None:
        name = _name_for(file)
    if kind is None:
        kind = split_name(name)[1] or split_name(file.name)[1]
    if kind is None:
        unknown_format = f"the format is unknown; use --format {' or '.join(FORMATS)}"
        raise InvalidInputError(f"{file}: {file_name_problem(file.name) or unknown_format}")
    with connect(url, token) as client:
        with _bar(file) as sent:
            uploaded = client.upload_dataset(file, name=name, file_format=kind, text_field=text_field, on_progress=sent)
        if watch and uploaded.job is not None:
            _wait(client, uploaded.job.id)
            uploaded = uploaded.model_copy(update={"dataset": client.dataset(uploaded.dataset.name)})
    if as_json:
        print_json(uploaded.model_dump(mode="json", by_alias=True))
        return
    dataset = uploaded.dataset
    documents = (
        "number of documents not known yet" if dataset.documents is None else plural(dataset.documents, "document")
    )
    out.print(f"{dataset.name}: {format_size(dataset.size_bytes)}, {documents}, {dataset.status}", soft_wrap=True)
    if uploaded.job is not None and not watch:
        err.print(
            f"Job {uploaded.job.id} tokenises the dataset. `tidal datasets show {dataset.name}` shows whether it is "
            "ready."
        )


@app.command("list")
def list_datasets(as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show all datasets."""
    with connect(url, token) as client:
        found = client.datasets()
    if as_json:
        print_json([dataset.model_dump(mode="json", by_alias=True) for dataset in found])
        return
    if not found:
        err.print("There are no datasets. Upload one with `tidal datasets upload FILE`.")
        return
    rows = table("dataset", "status", "documents>", "tokens>", "size>", "used by>", "uploaded")
    for dataset in found:
        counts = _count(dataset.documents), _count(dataset.tokens)
        use = format_size(dataset.size_bytes), str(dataset.used_by or ""), age(dataset.created_at)
        rows.add_row(dataset.name, status_text(dataset.status), *counts, *use)
    out.print(rows)


@app.command()
def show(name: Name, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show a dataset and the experiments that use it."""
    with connect(url, token) as client:
        dataset = client.dataset(name)
    if as_json:
        print_json(dataset.model_dump(mode="json", by_alias=True))
        return
    held_out = f" ({_count(dataset.validation_tokens)} held out)" if dataset.validation_tokens else ""
    rows = table("", "")
    rows.show_header = False
    rows.add_row("status", status_text(dataset.status))
    if dataset.error is not None:
        rows.add_row("error", dataset.error.message or dataset.error.code)
    rows.add_row(
        "format", dataset.format if dataset.format == "txt" else f"{dataset.format}, text in {dataset.text_field}"
    )
    rows.add_row("size", format_size(dataset.size_bytes))
    rows.add_row("documents", _count(dataset.documents))
    rows.add_row("tokens", _count(dataset.tokens) + held_out)
    rows.add_row("sha256", dataset.sha256)
    rows.add_row("job", dataset.job_id or "")
    rows.add_row("uploaded", age(dataset.created_at))
    for number, use in enumerate(dataset.uses):
        rows.add_row("" if number else "used by", f"{use.name or use.experiment_id} ({use.type}, {use.status})")
    out.print(rows)
    if dataset.status != "failed":
        err.print(f"Train on it with: tidal jobs submit lm-training --data {dataset.name}")


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete a dataset's text and tokens. Models that were trained on it are kept."""
    with connect(url, token) as client:
        if not yes:
            dataset = client.dataset(name)
            typer.confirm(
                f"Delete the dataset {dataset.name} ({format_size(dataset.size_bytes)}) and its tokens?",
                abort=True,
                err=True,
            )
        client.delete_dataset(name)
    out.print(f"Deleted {name}.")


def _wait(client: Client, job_id: str) -> None:
    """Wait until the job has completed. Raises JobFailed if the job fails or is cancelled."""
    with err.status("tokenising"):
        while (job := client.job(job_id)).status != JobStatus.COMPLETED:
            if job.finished_at is not None:
                reason = job.error.message or job.error.code if job.error is not None else job.status
                raise JobFailed(f"the dataset was not tokenised: {reason}")
            time.sleep(POLL_SECONDS)


def _name_for(file: Path) -> str:
    """Return a valid dataset name derived from the file name. Print the dataset name if it differs from the file
    name."""
    plain, kind = split_name(file.name)
    if kind is None and (problem := file_name_problem(file.name)) is not None:
        raise InvalidInputError(f"{file}: {problem}")
    name = suggest_name(file.name)
    if name is None:
        raise InvalidInputError(f"{file}: no dataset name can be derived from this file name; choose one with --name")
    if name != plain:
        err.print(f"The dataset is called {name}; --name chooses another name.", soft_wrap=True)
    return name


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


@contextmanager
def _bar(file: Path) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr. Yield a function that must be called with the number of bytes sent so far."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as shown:
        task = shown.add_task(file.name, total=file.stat().st_size)
        yield lambda sent: shown.update(task, completed=sent)
