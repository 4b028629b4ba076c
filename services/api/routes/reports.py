"""`/api/reports`: Markdown reports about experiments with charts, generated or written by hand, and their export."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from common.reports.document import POLICY
from services.api.auth import By, ContextDep, Reader, Submitter
from services.api.context import Context, session_of
from services.api.operations import report_facts, report_figures, reports
from services.api.paging import Cursor, Limit
from services.api.schemas.problems import problem_responses
from services.api.schemas.reports import GenerateReportRequest, RenderRequest, ReportChange, ReportRequest
from tidal_client.wire.report import PatternList, RenderReply, ReportList, ReportReply

router = APIRouter(prefix="/api/reports", tags=["reports"], dependencies=[Reader])
SessionDep = Annotated[Session, Depends(session_of, scope="function")]
TYPES = {"html": "text/html; charset=utf-8", "md": "text/markdown; charset=utf-8"}


@router.get("", summary="List reports")
def list_reports(
    session: SessionDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Annotated[str | None, Query(max_length=200, description="Text that the title contains.")] = None,
    experiment: Annotated[str | None, Query(max_length=200, description="Only reports about this experiment.")] = None,
) -> ReportList:
    """Returns reports without their texts, newest first."""
    return reports.reports_page(session, limit=limit, cursor=cursor, search=search, experiment=experiment)


@router.get("/patterns", summary="List the report templates")
def list_patterns() -> PatternList:
    """Returns the templates from which `POST /api/reports/generate` can generate a report."""
    return reports.pattern_list()


@router.post("", summary="Write a report", status_code=201)
def create(body: ReportRequest, context: ContextDep, caller: By, response: Response) -> ReportReply:
    """Stores a report. Answers 422 for an invalid `chart` block, with its line number."""
    with context.sessions.begin() as session:
        made = reports.create_report(session, body, caller)
    response.headers["Location"] = _location(context, made)
    return made


@router.post(
    "/generate",
    summary="Generate a report from a template",
    status_code=201,
    responses=problem_responses(404, 507),
)
def generate(body: GenerateReportRequest, context: ContextDep, caller: By, response: Response) -> ReportReply:
    """Generates a report from stored data and stores it.

    `pattern` names the template. The report names missing data. It can be edited like any other report.
    """
    made = report_facts.make_report(context, body, caller)
    response.headers["Location"] = _location(context, made)
    return made


@router.post("/render", summary="Render Markdown", dependencies=[Submitter])
def render(body: RenderRequest) -> RenderReply:
    """Returns safe HTML and charts, as the dashboard shows a report, without storing anything.

    In place of an invalid chart, it returns a part of kind `problem`.
    """
    return reports.render_markdown(body.markdown)


@router.get("/{report_id}", summary="Show a report", responses=problem_responses(404))
def get(report_id: str, session: SessionDep) -> ReportReply:
    """Returns a report with its Markdown and its version."""
    return reports.get_report(session, report_id)


@router.get("/{report_id}/rendered", summary="Show a rendered report", responses=problem_responses(404))
def get_rendered(report_id: str, context: ContextDep) -> RenderReply:
    """Returns a stored report in the format of `POST /api/reports/render`. Callers who may only read can use it."""
    with context.sessions() as session:
        markdown = reports.get_report(session, report_id).markdown
    return reports.render_markdown(markdown)


@router.put(
    "/{report_id}",
    summary="Change a report",
    responses=problem_responses(404, 409),
)
def change(report_id: str, body: ReportChange, context: ContextDep, caller: By) -> ReportReply:
    """Replaces title and text of a report.

    Answers 409 `report_changed` when `version` is not the newest version; otherwise two authors could overwrite each
    other's changes.
    """
    with context.sessions.begin() as session:
        return reports.change_report(session, report_id, body, caller)


@router.delete(
    "/{report_id}",
    summary="Delete a report",
    status_code=204,
    responses=problem_responses(404),
)
def delete(report_id: str, context: ContextDep, caller: By) -> None:
    """Deletes a report, but not the experiments that it is about. Others' reports need the scope admin."""
    with context.sessions.begin() as session:
        reports.delete_report(session, report_id, caller)


@router.get(
    "/{report_id}/export",
    summary="Export a report",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {}, "text/markdown": {}}, "description": "The file"},
        **problem_responses(404),
    },
)
def export(
    report_id: str,
    context: ContextDep,
    form: Annotated[
        Literal["html", "md"],
        Query(
            alias="format",
            description="html: one file that can be opened offline. md: Markdown, with tables of the last "
            "values instead of charts.",
        ),
    ] = "html",
) -> Response:
    """Sends a report as a file. The charts show the currently stored data; a note replaces data that was deleted."""
    report, text = report_figures.export_report(context, report_id, html=form == "html")
    slug = re.sub(r"[^a-z0-9]+", "-", report.title.lower()).strip("-")[:80] or report.id
    headers = {
        "Content-Disposition": f'attachment; filename="{slug}.{form}"',
        "Content-Security-Policy": f"{POLICY}; sandbox",
    }
    return Response(text, media_type=TYPES[form], headers=headers)


def _location(context: Context, made: ReportReply) -> str:
    return f"{context.settings.root_path.rstrip('/')}/api/reports/{made.id}"
