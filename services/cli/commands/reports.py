"""`tidal reports …`: generates reports about experiments, shows them, and exports them to files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from common.errors import ConflictError, InvalidInputError, NotFoundError
from common.files import write_atomic, write_text
from common.terminal import printable
from services.cli.connection import Token, Url, connect
from services.cli.output import age, err, out, print_json, table
from tidal_client import Client
from tidal_client.vocabulary import ReportPattern

app = typer.Typer(help="Generate, read and export reports about experiments.", no_args_is_help=True)


class ReportFormat(StrEnum):
    """The format of an exported report."""

    HTML = "html"
    MD = "md"


ReportId = Annotated[str, typer.Argument(help="Id of the report, or `last` for the newest one.")]
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]


@app.command("list")
def list_reports(
    search: Annotated[
        str | None, typer.Option("--search", help="Show only reports with this text in the title.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", help="Show only reports about this experiment.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of reports to show.")] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the newest reports."""
    with connect(url, token) as client:
        found = client.reports(search=search, experiment=experiment, limit=limit)
    if as_json:
        print_json([report.model_dump(mode="json", by_alias=True) for report in found])
        return
    if not found:
        err.print("There are no reports. Generate one with `tidal reports generate`.")
        return
    rows = table("report", "title", "made from", "experiments>", "changed")
    for report in found:
        made_from = report.pattern or "by hand"
        rows.add_row(report.id, report.title, made_from, str(len(report.experiment_ids)), age(report.updated_at))
    out.print(rows)


@app.command()
def show(
    report: ReportId,
    raw: Annotated[bool, typer.Option("--raw", help="Print the Markdown text as it is stored.")] = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a report. Instead of each chart, it contains a table of the chart's last values."""
    with connect(url, token) as client:
        found = client.report(_id(client, report))
        text = "" if raw or as_json else client.export_report(found.id, "md")
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    elif raw:
        typer.echo(printable(found.markdown or ""))
    elif not out.is_terminal:
        typer.echo(printable(_without_blocks(text)))
    else:
        out.print(Markdown(_without_blocks(text), hyperlinks=False))


@app.command()
def generate(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Ids of one to eight experiments. Default: the newest experiment.")
    ] = None,
    pattern: Annotated[
        ReportPattern, typer.Option("--pattern", "-p", help="Template that selects the contents of the report.")
    ] = "full-report",
    title: Annotated[
        str | None,
        typer.Option(
            "--title", help="Title of the report. Default: the name of the template and that of the experiment."
        ),
    ] = None,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Generate a report about experiments from their stored data."""
    with connect(url, token) as client:
        report = client.generate_report(pattern, experiments or [_newest(client)], title=title)
    if as_json:
        print_json(report.model_dump(mode="json", by_alias=True))
        return
    out.print(f"Generated {report.id}: {report.title}", markup=False, soft_wrap=True)
    err.print(f"Read the report with: tidal reports show {report.id}", soft_wrap=True)


@app.command()
def export(
    report: ReportId,
    form: Annotated[
        ReportFormat,
        typer.Option("--format", "-f", help="Format of the file. html is a single page that can be read offline."),
    ] = ReportFormat.HTML,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. Default: standard output.", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Export a report as one file. Its charts show the data that is stored now."""
    if to is not None and to.exists() and not force:
        raise ConflictError(f"{to} already exists; --force replaces it")
    with connect(url, token) as client:
        text = client.export_report(_id(client, report), form.value)
    if to is None:
        typer.echo(printable(text), nl=False)
        return
    write_atomic(to, lambda temporary: write_text(temporary, text))
    err.print(f"Wrote {to}.", markup=False, soft_wrap=True)


@app.command()
def delete(
    reports: Annotated[list[str], typer.Argument(help="Ids of reports.")], url: Url = None, token: Token = None
) -> None:
    """Delete reports. Their experiments are kept."""
    if "last" in reports:
        raise InvalidInputError("a report can be deleted only by its id, not by `last`")
    with connect(url, token) as client:
        for report in reports:
            client.delete_report(report)
            err.print(f"Deleted {report}.", markup=False)


def _id(client: Client, report: str) -> str:
    if report != "last":
        return report
    found = client.reports(limit=1)
    if not found:
        raise NotFoundError("there are no reports; generate one with `tidal reports generate`")
    return found[0].id


def _newest(client: Client) -> str:
    found = client.experiments(limit=1)
    if not found:
        raise NotFoundError(
            "there are no experiments to generate a report about; submit a job with `tidal jobs submit`"
        )
    return found[0].id


def _without_blocks(text: str) -> str:
    """Remove the blocks that define charts, because a terminal cannot show charts.

    The tables of their last values remain.
    """
    kept, inside = [], False
    for line in text.split("\n"):
        if line.startswith("```chart"):
            inside = True
        elif inside:
            inside = not line.startswith("```")
        else:
            kept.append(line)
    return "\n".join(kept)
