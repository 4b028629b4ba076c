"""`tidal experiments …`: lists, shows, compares, renames and deletes experiments."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from common.errors import ConflictError, InvalidInputError, NotFoundError
from common.words import plural
from services.cli.completion import complete_experiment
from services.cli.connection import Token, Url, connect
from services.cli.output import age, err, format_size, format_time, out, print_error, print_json, status_text, table
from tidal_client import Client, Experiment, Metrics
from tidal_client.wire.experiment import ExperimentReply

app = typer.Typer(help="List, compare, rename and delete experiments.", no_args_is_help=True)

ExperimentId = Annotated[
    str,
    typer.Argument(
        help="Id of the experiment, or `last` for the newest one.",
        metavar="EXPERIMENT",
        autocompletion=complete_experiment,
    ),
]
ExperimentIds = Annotated[
    list[str],
    typer.Argument(help="Ids of experiments.", metavar="EXPERIMENT...", autocompletion=complete_experiment),
]
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]
MOST_DIFFERENCES = 200


@app.command("list")
def list_experiments(
    kind: Annotated[
        str | None, typer.Option("--type", help="Show only lm, rl, evaluation, ablation, analysis or dataset.")
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Show only experiments whose newest job has this status.")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Show only experiments with this tag.")] = None,
    search: Annotated[
        str | None, typer.Option("--search", "-s", help="Show only experiments whose id or name contains this text.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of experiments to show.")
    ] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the newest experiments."""
    with connect(url, token) as client:
        found = client.experiments(kind=kind, status=status, tag=tag, search=search, limit=limit)
    if as_json:
        print_json([experiment.model_dump(mode="json", by_alias=True) for experiment in found])
        return
    if not found:
        err.print("No experiments. Submit a job with `tidal jobs submit`.")
        return
    rows = table("experiment", "type", "status", "progress>", "name", "tags", "created")
    for each in found:
        status_cell = status_text(each.status)
        rows.add_row(
            each.id, each.type, status_cell, _progress(each), each.name or "", " ".join(each.tags), age(each.created_at)
        )
    out.print(rows)


@app.command()
def show(experiment: ExperimentId, as_json: Json = False, url: Url = None, token: Token = None) -> None:
    """Show an experiment: its job, the last values of its metrics, its results and its size."""
    with connect(url, token) as client:
        found = find_experiment(client, experiment)
        if as_json:
            print_json(found.model_dump(mode="json", by_alias=True))
            return
        values = last_values(client, found)
    facts: dict[str, Any] = {
        "type": found.type,
        "status": status_text(found.status),
        "name": found.name,
        "tags": " ".join(found.tags),
        "notes": found.notes,
        "job": found.job_id,
        "started from": found.source_checkpoint or found.source_experiment_id,
        "progress": _progress(found),
        "vocabulary": f"{found.vocabulary.name}, {found.vocabulary.size:,} entries" if found.vocabulary else None,
        "results": ", ".join(found.results),
        "size": format_size(found.size_bytes),
        "created": format_time(found.created_at),
        "logs deleted": format_time(found.archive_deleted_at) if found.archive_deleted_at else None,
    }
    grid = table("", "", title=found.id)
    grid.show_header = False
    for key, value in facts.items():
        if value:
            grid.add_row(Text(key, style="dim"), value if isinstance(value, Text) else Text(str(value)))
    out.print(grid)
    if values:
        rows = table("metric", "step>", "last value>")
        for name, (step, value) in values.items():
            rows.add_row(name, f"{step:,}", number_text(value))
        out.print(rows)


@app.command()
def compare(
    experiments: ExperimentIds,
    keys: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Compare this metric. The option can be repeated. Default: all metrics."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Compare experiments: the values of the configuration that differ, and the last values of the metrics."""
    ids = list(dict.fromkeys(experiments))
    if len(ids) < 2:
        raise InvalidInputError("give at least two experiments to compare")
    with connect(url, token) as client:
        found = [find_experiment(client, each) for each in ids]
        configs = {each.id: _config(client, each.id) for each in found}
        values = {each.id: last_values(client, each) for each in found}
    differing = differences(configs)
    names = [
        name for name in dict.fromkeys(key for each in values.values() for key in each) if not keys or name in keys
    ]
    if as_json:
        metrics = {name: {each: values[each][name][1] for each in values if name in values[each]} for name in names}
        print_json({"experiments": list(configs), "configuration": differing, "metrics": metrics})
        return
    columns = [each.name or each.id for each in found]
    rows = table("", *(f"{column}>" for column in columns))
    for name in names:
        rows.add_row(name, *(number_text(values[each][name][1]) if name in values[each] else "" for each in configs))
    out.print(rows)
    rows = table("configuration", *columns)
    for path, each in list(differing.items())[:MOST_DIFFERENCES]:
        rows.add_row(path, *("" if value is None else str(value) for value in each.values()))
    if differing:
        out.print(rows)
    else:
        err.print("The configurations are equal.")


@app.command()
def rename(
    experiment: ExperimentId,
    name: Annotated[str, typer.Argument(help="The new name; an empty text removes it.")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change the name of an experiment. Its id stays the same."""
    with connect(url, token) as client:
        changed = client.change_experiment(find_experiment(client, experiment).id, name=name or None)
    if as_json:
        print_json(changed.model_dump(mode="json", by_alias=True))
    else:
        err.print(
            f"{changed.id} is now named {changed.name!r}." if changed.name else f"{changed.id} has no name.",
            markup=False,
        )


@app.command()
def delete(
    experiments: ExperimentIds,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Delete experiments with their jobs, checkpoints, metrics and logs. This cannot be undone."""
    ids = list(dict.fromkeys(experiments))
    if "last" in ids:
        raise InvalidInputError("an experiment can be deleted only by its id, not by `last`")
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(
                f"this would delete {plural(len(ids), 'experiment')}; there is no terminal to ask for confirmation, so "
                "add --yes"
            )
        typer.confirm(f"Delete {plural(len(ids), 'experiment')} with all files?", abort=True, err=True)
    failed = False
    with connect(url, token) as client:
        for each in ids:
            try:
                client.delete_experiment(each)
            except (ConflictError, NotFoundError) as error:
                print_error(error.message)
                failed = True
            else:
                err.print(f"Deleted {each}.", markup=False)
    if failed:
        raise typer.Exit(1)


def find_experiment(client: Client, experiment: str) -> Experiment:
    """Return an experiment by its id, or the newest for `last`. Raises NotFoundError."""
    if experiment == "last":
        newest = client.experiments(limit=1)
        if not newest:
            raise NotFoundError("there are no experiments; submit a job with `tidal jobs submit`")
        experiment = newest[0].id
    return client.experiment(experiment)


def last_values(client: Client, experiment: Experiment) -> dict[str, tuple[int, float]]:
    """Return {metric: (step, value)} of the last point of each metric, of a model's and of a controller's training."""
    found: dict[str, tuple[int, float]] = {}
    for rl, names in ((False, experiment.metric_names), (True, experiment.rl_metric_names)):
        if names:
            metrics: Metrics = client.metrics(experiment.id, rl=rl, max_points=3)
            found |= {
                key: (metrics.series[key][-1].step, metrics.series[key][-1].value)
                for key in metrics.keys
                if metrics.series.get(key)
            }
    return found


def differences(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return {dotted path: {experiment: value}} for the values of configurations that are not equal in all of them."""
    paths = sorted({path for config in configs.values() for path in config})
    values = {path: {each: config.get(path) for each, config in configs.items()} for path in paths}
    return {path: each for path, each in values.items() if len(set(map(repr, each.values()))) > 1}


def number_text(value: float) -> str:
    """Return a number with at most six significant digits."""
    return f"{value:,.0f}" if math.isfinite(value) and value == round(value) and abs(value) < 1e12 else f"{value:.6g}"


def _config(client: Client, experiment_id: str) -> dict[str, Any]:
    with contextlib.suppress(NotFoundError):
        found = client.experiment_config(experiment_id)
        return {**_flat(found.config or {}), **_flat(found.rl_config or {})}
    return {}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in value.items():
        path = f"{prefix}{name}"
        found |= _flat(part, f"{path}.") if isinstance(part, dict) else {path: part}
    return found


def _progress(experiment: ExperimentReply) -> str:
    progress = experiment.progress
    if progress is None or not progress.step:
        return ""
    return f"{progress.step} / {progress.total_steps}" if progress.total_steps else str(progress.step)
