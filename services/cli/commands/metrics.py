"""`tidal metrics`: exports the metrics of an experiment as CSV, Parquet or JSON.

A row is one step; a metric without a value at a step is empty there. Parquet needs pyarrow, which the extra `torch`
installs.
"""

from __future__ import annotations

import csv
import io
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from common.errors import ConflictError, InvalidInputError
from common.files import flush, write_atomic
from services.cli.commands.experiments import ExperimentId, find_experiment
from services.cli.connection import Token, Url, connect
from services.cli.output import err, print_json
from tidal_client import Metrics

MOST_POINTS = 50_000


class Form(StrEnum):
    """The form of an export."""

    CSV = "csv"
    PARQUET = "parquet"


def command(
    experiment: ExperimentId,
    keys: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="Export only this metric. The option can be repeated."),
    ] = None,
    rl: Annotated[bool, typer.Option("--rl", help="Export the metrics of a controller's training.")] = False,
    to: Annotated[
        Path | None,
        typer.Option("--to", "-o", help="File to write: .csv or .parquet. Default: CSV to standard output."),
    ] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Default: by the suffix of the file.")] = None,
    max_points: Annotated[
        int,
        typer.Option(
            "--max-points", min=3, max=MOST_POINTS, help="Maximum number of points per metric; more are downsampled."
        ),
    ] = MOST_POINTS,
    from_step: Annotated[int | None, typer.Option("--from-step", min=0, help="First step to export.")] = None,
    to_step: Annotated[int | None, typer.Option("--to-step", min=0, help="Last step to export.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Export the metrics of an experiment. Example: tidal metrics last -m Losses/Total --to losses.csv"""
    form = form or (Form.PARQUET if to is not None and to.suffix == ".parquet" else Form.CSV)
    if form is Form.PARQUET and to is None:
        raise InvalidInputError("a parquet file cannot be printed; name a file with --to")
    if to is not None and to.exists() and not force:
        raise ConflictError(f"{to} already exists; --force replaces it")
    with connect(url, token) as client:
        found = find_experiment(client, experiment)
        rl = rl or (bool(found.rl_metric_names) and not found.metric_names)
        metrics = client.metrics(
            found.id, keys=keys, rl=rl, max_points=max_points, from_step=from_step, to_step=to_step
        )
    if as_json:
        print_json(metrics.model_dump(mode="json", by_alias=True))
        return
    columns = columns_of(metrics)
    if to is None:
        typer.echo(csv_text(columns), nl=False)
        return
    content = parquet_bytes(columns) if form is Form.PARQUET else csv_text(columns).encode()
    write_atomic(to, lambda temporary: _write(temporary, content))
    err.print(f"Wrote {len(columns['step']):,} rows to {to}.", markup=False, soft_wrap=True)


def columns_of(metrics: Metrics) -> dict[str, list[Any]]:
    """Return the steps and one column per metric, of the same length; None where a metric has no value."""
    values = {key: {point.step: point.value for point in metrics.series.get(key, [])} for key in metrics.keys}
    steps = sorted({step for points in values.values() for step in points})
    return {"step": list(steps), **{key: [points.get(step) for step in steps] for key, points in values.items()}}


def csv_text(columns: dict[str, list[Any]]) -> str:
    """Return a table as CSV. Numbers have all their digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        ["" if value is None else repr(value) for value in row] for row in zip(*columns.values(), strict=True)
    )
    return text.getvalue()


def parquet_bytes(columns: dict[str, list[Any]]) -> bytes:
    """Return a table as a parquet file. Raises InvalidInputError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InvalidInputError("parquet needs the package pyarrow; install it with: pip install '.[torch]'") from None
    types = {name: pa.int64() if name == "step" else pa.float64() for name in columns}
    made = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    buffer = io.BytesIO()
    pq.write_table(made, buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    flush(path)
